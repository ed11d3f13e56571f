-- Lower an entity's shown count. By an amount and not to one: views that come meanwhile stay counted.
--
-- KEYS: count of the entity.  ARGV: view type, by how much
if redis.call('HEXISTS', KEYS[1], '') == 0 then return 0 end
redis.call('HINCRBY', KEYS[1], ARGV[1], -tonumber(ARGV[2]))
return 1
