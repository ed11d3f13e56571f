-- Raise an entity's shown counts to the database's where these are higher. Nothing lowers them, and an entity
-- whose counts nobody has asked for stays absent: it is seeded when somebody does.
--
-- KEYS: count of the entity.  ARGV: (view type, count) ...
if redis.call('HEXISTS', KEYS[1], '') == 0 then return 0 end
local raised = 0
for i = 1, #ARGV, 2 do
  local shown = tonumber(redis.call('HGET', KEYS[1], ARGV[i]) or '0')
  if shown < tonumber(ARGV[i + 1]) then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
    raised = raised + 1
  end
end
return raised
