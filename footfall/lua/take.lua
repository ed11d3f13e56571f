-- Take one view of content: recognise a retry, decide whether it repeats, append it, count it, remember the
-- answer. All of it or nothing: nobody can come between the look at a slot and the append.
--
-- KEYS: stream, ledger, count of the entity, slot of the id, slot of the viewer today, and yesterday.
-- ARGV: see `stream._take_arguments`.  Returns {status, outcome, views}; status is taken, retry (nothing was
-- done, the first answer is given again), seed (nothing was done: call again with the database's counts)
-- or limited (nothing was done: the entity has all the view types that it may have).
local stream, ledger, count, id_slot = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local now, event_id, payload, tally = tonumber(ARGV[1]), ARGV[2], ARGV[3], ARGV[4]
local outcome, view_type = ARGV[5], ARGV[6]
local id_ms, window_ms, count_ms = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local most_view_types, entity = tonumber(ARGV[10]), ARGV[11]
local is_seeded, first_seed = ARGV[12] == '1', 13

local function held(slot) -- what a slot says, if its time has not passed by the caller's clock
  local value = redis.call('GET', slot)
  if not value then return nil end
  local ends, what = string.match(value, '^(%d+)|(.*)$')
  if tonumber(ends) > now then return what end
end

local function views()
  local total = 0
  local fields = redis.call('HGETALL', count)
  for i = 1, #fields, 2 do
    if fields[i] ~= '' then total = total + tonumber(fields[i + 1]) end
  end
  return total
end

local function has_room() -- for the view type, among those that are shown and those that are to be seeded
  if redis.call('HEXISTS', count, view_type) == 1 then return true end
  local types = math.max(redis.call('HLEN', count) - 1, 0) -- the empty field is no view type
  for i = first_seed, #ARGV, 2 do
    if ARGV[i] == view_type then return true end
    if redis.call('HEXISTS', count, ARGV[i]) == 0 then types = types + 1 end
  end
  return types < most_view_types
end

if id_ms > 0 then
  local answer = held(id_slot)
  if answer then
    local first, shown = string.match(answer, '^(%a+)|(%d+)$')
    return {'retry', first, tonumber(shown)}
  end
end

if redis.call('HEXISTS', count, '') == 0 and not is_seeded then return {'seed', '', 0} end

if outcome == 'counted' and window_ms > 0 then
  local viewed = held(KEYS[5]) or held(KEYS[6])
  if viewed == event_id then return {'retry', 'counted', views()} end
  if viewed then outcome = 'repeat' end
end

-- what is over the cap may come again as `other`, which is always let in
if outcome == 'counted' and view_type ~= 'other' and not has_room() then
  return {'limited', outcome, 0}
end

-- the append first: if Redis refuses for lack of memory, nothing has been done
redis.call('XADD', stream, '*', 'e', payload, 'o', outcome)
redis.call('HINCRBY', ledger, tally, 1)
if is_seeded then
  redis.call('HSET', count, '', entity)
  for i = first_seed, #ARGV, 2 do
    local shown = tonumber(redis.call('HGET', count, ARGV[i]) or '0')
    if shown < tonumber(ARGV[i + 1]) then redis.call('HSET', count, ARGV[i], ARGV[i + 1]) end
  end
end
if outcome == 'counted' then
  redis.call('HINCRBY', count, view_type, 1)
  if window_ms > 0 then
    redis.call('SET', KEYS[5], string.format('%d|%s', now + window_ms, event_id), 'PX', window_ms)
  end
end
redis.call('PEXPIRE', count, count_ms)
local shown = views()
if id_ms > 0 then
  redis.call('SET', id_slot, string.format('%d|%s|%d', now + id_ms, outcome, shown), 'PX', id_ms)
end
return {'taken', outcome, shown}
