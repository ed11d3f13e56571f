-- Acknowledge and remove entries after the commit, and count what became of their events only if this was
-- the call that acknowledged them: two writers that finish the same entry count it once.
--
-- KEYS: stream, ledger.  ARGV: group, then for each entry: id, number of tallies, (field, amount) ...
local acknowledged, totals, i = 0, {}, 2
while i <= #ARGV do
  local id, tallies = ARGV[i], tonumber(ARGV[i + 1])
  local first = redis.call('XACK', KEYS[1], ARGV[1], id) == 1
  redis.call('XDEL', KEYS[1], id)
  i = i + 2
  for _ = 1, tallies do
    if first then totals[ARGV[i]] = (totals[ARGV[i]] or 0) + tonumber(ARGV[i + 1]) end
    i = i + 2
  end
  if first then acknowledged = acknowledged + 1 end
end
for field, amount in pairs(totals) do redis.call('HINCRBY', KEYS[2], field, amount) end
return acknowledged
