-- Add amounts to the fields of a hash that ends by itself, and read what they come to.
--
-- KEYS: the hash.  ARGV: seconds until it ends, then for each amount: field, amount
local sums = {}
for i = 2, #ARGV, 2 do sums[#sums + 1] = redis.call('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('EXPIRE', KEYS[1], ARGV[1])
return sums
