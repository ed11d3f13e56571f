-- Forget the days before, and keep what they add up to: a total never falls.
--
-- KEYS: ledger.  ARGV: first day to keep, the name under which the sums are kept, which sorts after every day
local fields = redis.call('HGETALL', KEYS[1])
for i = 1, #fields, 2 do
  local day, tally = string.match(fields[i], '^([^:]+):(.+)$')
  if day and day < ARGV[1] then
    redis.call('HINCRBY', KEYS[1], ARGV[2] .. ':' .. tally, fields[i + 1])
    redis.call('HDEL', KEYS[1], fields[i])
  end
end
