-- Acknowledge and remove entries after the commit, and count what became of their events only if this was
-- the call that acknowledged them: two writers that finish the same entry count it once.
--
-- KEYS: stream, ledger.  ARGV: group, then for entries with the same tallies: their number, their ids, the
-- number of tallies, (field, amount) of one entry ...
local acknowledged, totals, i = 0, {}, 2
while i <= #ARGV do
  local first, last = 0, i + tonumber(ARGV[i])
  for n = i + 1, last do
    first = first + redis.call('XACK', KEYS[1], ARGV[1], ARGV[n])
    redis.call('XDEL', KEYS[1], ARGV[n])
  end
  i = last + 2
  for _ = 1, tonumber(ARGV[last + 1]) do
    if first > 0 then totals[ARGV[i]] = (totals[ARGV[i]] or 0) + first * tonumber(ARGV[i + 1]) end
    i = i + 2
  end
  acknowledged = acknowledged + first
end
for field, amount in pairs(totals) do redis.call('HINCRBY', KEYS[2], field, amount) end
return acknowledged
