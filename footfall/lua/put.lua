-- Append groups of events and count them as accepted: all of it or nothing.
--
-- KEYS: stream, ledger.  ARGV: number of groups, their envelopes, then (ledger's field, amount) ...
local groups = tonumber(ARGV[1])
-- the appends first: if Redis refuses for lack of memory, nothing has been done
for i = 2, groups + 1 do redis.call('XADD', KEYS[1], '*', 'e', ARGV[i]) end
for i = groups + 2, #ARGV, 2 do redis.call('HINCRBY', KEYS[2], ARGV[i], ARGV[i + 1]) end
return redis.status_reply('OK') -- one line, which `loop_redis` reads
