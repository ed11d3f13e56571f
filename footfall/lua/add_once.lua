-- Add a process' amounts, once: whoever does not know whether Redis took them sends the same again. A Redis that
-- was paused carries out all that was sent to it meanwhile.
--
-- KEYS: the process' last number, then hashes.  ARGV: number, milliseconds to remember it, then for each amount:
-- place of the hash among the keys, field, amount
if tonumber(redis.call('GET', KEYS[1]) or '0') >= tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
for i = 3, #ARGV, 3 do redis.call('HINCRBY', KEYS[tonumber(ARGV[i])], ARGV[i + 1], ARGV[i + 2]) end
return 1
