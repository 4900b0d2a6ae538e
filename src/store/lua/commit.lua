-- Commits deliveries with everything that their handlers asked for: each by itself, wholly or not at all.
-- KEYS: stream, attempts, inbox, then per delivery the keys of its conditions and effects
-- ARGV: group, consumer, delete, then per delivery, in the order of IDs: id, count, troubled, number of keys
--     of the deliveries before it, number of values, and these values:
--   number of conditions, each: kind, key index, then
--     string: present ('1'/'0'), value | field: name, present, value | version: expected
--   number of effects, each: name, key index, number of arguments, arguments
--   number of follow-ups, each: json, hops
-- Answers per delivery: HELD (done), GONE, FENCED, CONFLICT, INVALID and why, or ERROR and why
-- (to be sent again); of what is not HELD nothing is written.
must_be(KEYS[1], 'stream')
must_be(KEYS[2], 'hash')
must_be(KEYS[3], 'stream')
must_be_able(KEYS[1], 'XACK')
if ARGV[3] == '1' then must_be_able(KEYS[1], 'XDEL') end
local MAX_INTEGER = 9007199254740991 -- beyond it a double, and many a client, loses digits

local function version_of(key)
  local last = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
  return last and string.match(last[1], '^%d+') or '0'
end
-- Redis wants the next ID of a stream to exceed every ID that it ever had, deleted or not.
local function newest_ever(key)
  return string.match(last_id(key) or '0', '^%d+')
end
local function wrong(key, kind)
  local actual = redis.call('TYPE', key).ok
  return actual ~= 'none' and actual ~= kind and actual
end

local TYPES = {
  SET = 'string', INCRBY = 'string', HSET = 'hash', HINCRBY = 'hash', HDEL = 'hash',
  SADD = 'set', SREM = 'set', ZADD = 'zset', ZINCRBY = 'zset', XADD = 'stream', NEWER = 'hash',
}

local function commit(id, troubled, base, position)
  local function take()
    local value = ARGV[position]
    position = position + 1
    return value
  end
  if troubled then must_be_able(KEYS[2], 'HDEL') end

  for _ = 1, tonumber(take()) do
    local kind, key = take(), KEYS[base + tonumber(take())]
    local expected_type = ({string = 'string', field = 'hash', version = 'stream'})[kind]
    local actual = wrong(key, expected_type)
    if actual then return {'INVALID', 'key ' .. key .. ' is a ' .. actual .. ', expected a ' .. expected_type} end
    if kind == 'version' then
      local version = version_of(key)
      if version ~= take() then return {'CONFLICT'} end
      if newest_ever(key) ~= version then
        return {'INVALID', 'the newest events of ' .. key .. ' were deleted: nothing can be appended after version ' .. version}
      end
    else
      local value
      if kind == 'string' then value = redis.call('GET', key) else value = redis.call('HGET', key, take()) end
      local present, expected = take(), take()
      if (value or '') ~= expected or (value and '1' or '0') ~= present then return {'CONFLICT'} end
    end
  end

  -- Per key, what the effects so far leave: `typed` (its type was checked, or it is deleted),
  -- `gone` (deleted), and what an increment would find in it.
  local effects, known = {}, {}
  for _ = 1, tonumber(take()) do
    local name, key, count, args = take(), KEYS[base + tonumber(take())], tonumber(take()), {}
    if count > MOST_VALUES then
      return {'INVALID', name .. ' on ' .. key .. ' has ' .. count .. ' values, more than ' .. MOST_VALUES}
    end
    for i = 1, count do args[i] = take() end
    effects[#effects + 1] = {name, key, args}
    if name == 'NEWER' then must_be_able(key, 'HMGET', 'HSET') else must_be_able(key, name) end
    local after = known[key] or {fields = {}}
    known[key] = after
    local kind = TYPES[name]
    if kind and not after.typed then
      local actual = wrong(key, kind)
      if actual then return {'INVALID', 'key ' .. key .. ' is a ' .. actual .. ', expected a ' .. kind} end
      after.typed = true
    end
    if name == 'DEL' then
      known[key] = {fields = {}, typed = true, gone = true}
    elseif name == 'SET' then
      after.value = args[1]
    elseif name == 'NEWER' then -- what it leaves depends on what is there: nothing to add to
      for _, field in ipairs({'value', 'at', 'by'}) do after.fields[field] = '' end
    elseif name == 'HSET' or name == 'HDEL' then
      after.fields[args[1]] = name == 'HSET' and args[2] or '0'
    elseif name == 'INCRBY' or name == 'HINCRBY' then
      local field = name == 'HINCRBY' and args[1]
      local before
      if field then before = after.fields[field] else before = after.value end
      if not before and not after.gone then
        before = field and redis.call('HGET', key, field) or not field and redis.call('GET', key)
      end
      before = before or '0'
      -- Redis knows no leading zeros and no -0.
      local integer = before == '0' or string.match(before, '^%-?[1-9]%d*$')
      local sum = integer and tonumber(before) + tonumber(args[#args])
      if not sum or math.abs(sum) > MAX_INTEGER then
        return {'INVALID', 'cannot add ' .. args[#args] .. ' to ' .. key .. ': it is not an integer or would exceed 2^53'}
      end
      sum = string.format('%.0f', sum)
      if field then after.fields[field] = sum else after.value = sum end
    end
  end

  local follow_ups = tonumber(take())
  if follow_ups > 0 then
    must_be_able(KEYS[3], 'XADD')
    must_take_more(KEYS[3])
  end

  -- The first write; nothing below can fail.
  if redis.call('XACK', KEYS[1], ARGV[1], id) == 0 then return {'GONE'} end
  for _, effect in ipairs(effects) do
    local name, key, args = effect[1], effect[2], effect[3]
    if name == 'NEWER' then -- value, event time (µs), event id: the later event wins, the id breaks ties
      local at, by = unpack(redis.call('HMGET', key, 'at', 'by'))
      at = at and tonumber(at) and at -- what this effect did not write is as old as can be
      local newer = not at or tonumber(args[2]) > tonumber(at) or (args[2] == at and args[3] > (by or ''))
      if newer then redis.call('HSET', key, 'value', args[1], 'at', args[2], 'by', args[3]) end
    else
      redis.call(name, key, unpack(args))
    end
  end
  for _ = 1, follow_ups do
    local json, hops = take(), take()
    redis.call('XADD', KEYS[3], '*', 'event', json, 'hops', hops)
  end
  if troubled then forget(KEYS[2], id) end
  if ARGV[3] == '1' then redis.call('XDEL', KEYS[1], id) end
  return {'HELD'}
end

local at, ids, position = {}, {}, 4
while position <= #ARGV do
  at[#at + 1] = position
  ids[#ids + 1] = ARGV[position]
  position = position + 5 + ARGV[position + 4]
end
local held = not holds_all(KEYS[1], ARGV[1], ARGV[2], KEYS[2]) and fence_all(KEYS[1], ARGV[1], ARGV[2], ids)
local answers = {}
for i, at in ipairs(at) do
  local id, count = ids[i], ARGV[at + 1]
  local state = held and held(id, count) or 'HELD'
  local answer = {state}
  if state == 'HELD' then
    local ran
    ran, answer = pcall(commit, id, ARGV[at + 2] == '1', tonumber(ARGV[at + 3]), at + 5)
    if not ran then answer = {'ERROR', answer.err or tostring(answer)} end
    -- What was settled before needs no other answer than that.
    if answer[1] ~= 'HELD' and not held then
      state = fence(KEYS[1], ARGV[1], ARGV[2], id, count)
      if state ~= 'HELD' then answer = {state} end
    end
  end
  answers[i] = answer
end
return answers
