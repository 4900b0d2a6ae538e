-- What a handler or a command asked for: conditions, effects, follow-ups. Put before the scripts that
-- write it, which check everything first (`check_conditions`, `check_effects`, `check_follow_ups`) and
-- then apply it (`apply`, `publish`). The form of the values is told in commit.lua.

local MAX_INTEGER = 9007199254740991 -- beyond it a double, and many a client, loses digits

local function version_of(key)
  local last = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
  return last and string.match(last[1], '^%d+') or '0'
end
-- Redis wants the next ID of a stream to exceed every ID that it ever had, deleted or not.
local function newest_ever(key)
  return string.match(last_id(key) or '0', '^%d+')
end

-- Looked up for each delivery.
local call, may, KEYS, ARGV, tonumber, unpack = redis.call, redis.acl_check_cmd, KEYS, ARGV, tonumber, unpack

local function wrong(key, kind)
  local actual = call('TYPE', key).ok
  return actual ~= 'none' and actual ~= kind and 'key ' .. key .. ' is a ' .. actual .. ', expected a ' .. kind
end

-- The types that keys of this batch have; what deletes one forgets it.
local typed = {}
local function check_type(key, kind)
  local why = typed[key] ~= kind and wrong(key, kind)
  if not why then typed[key] = kind end
  return why
end

local CONDITIONS = {string = 'string', field = 'hash', version = 'stream'}
-- Nothing if they hold; and where the values of what follows begin.
local function check_conditions(conditions, keys, at)
  for i = 1, conditions do
    local kind, key = ARGV[at], KEYS[keys + i]
    local why = check_type(key, CONDITIONS[kind])
    if why then return {'INVALID', why} end
    at = at + 1
    if kind == 'version' then
      local version = version_of(key)
      if version ~= ARGV[at] then return 'CONFLICT' end
      if newest_ever(key) ~= version then
        return {'INVALID', 'the newest events of ' .. key .. ' were deleted: nothing can be appended after version ' .. version}
      end
      at = at + 1
    else
      local value
      if kind == 'string' then
        value = call('GET', key)
      else
        value = call('HGET', key, ARGV[at])
        at = at + 1
      end
      if (value or '') ~= ARGV[at + 1] or (value and '1' or '0') ~= ARGV[at] then return 'CONFLICT' end
      at = at + 2
    end
  end
  return nil, at
end

local TYPES = {
  SET = 'string', INCRBY = 'string', HSET = 'hash', HINCRBY = 'hash', HDEL = 'hash',
  SADD = 'set', SREM = 'set', ZADD = 'zset', ZREM = 'zset', ZINCRBY = 'zset', XADD = 'stream', NEWER = 'hash',
}

-- Notes in `after` what an effect leaves for the increments behind it; and whether it can be done.
local function follow(after, name, key, count, at)
  if name == 'SET' then
    after.value = ARGV[at]
  elseif name == 'NEWER' then -- what it leaves depends on what is there: nothing to add to
    for _, field in ipairs({'value', 'at', 'by'}) do after.fields[field] = '' end
  elseif name == 'HSET' or name == 'HDEL' then
    after.fields[ARGV[at]] = name == 'HSET' and ARGV[at + 1] or '0'
  elseif name == 'INCRBY' or name == 'HINCRBY' then
    local field, amount = name == 'HINCRBY' and ARGV[at], ARGV[at + count - 1]
    local before
    if field then before = after.fields[field] else before = after.value end
    if not before and not after.gone then
      before = field and call('HGET', key, field) or not field and call('GET', key)
    end
    before = before or '0'
    -- Redis knows no leading zeros and no -0.
    local integer = before == '0' or string.match(before, '^%-?[1-9]%d*$')
    local sum = integer and tonumber(before) + tonumber(amount)
    if not sum or math.abs(sum) > MAX_INTEGER then
      return 'cannot add ' .. amount .. ' to ' .. key .. ': it is not an integer or would exceed 2^53'
    end
    sum = string.format('%.0f', sum)
    if field then after.fields[field] = sum else after.value = sum end
  end
end

-- '<name> <number of arguments>' and such, taken apart once.
local numbers_of = setmetatable({}, {__index = function(known, text)
  local numbers = {}
  for number in string.gmatch(text, '%d+') do numbers[#numbers + 1] = tonumber(number) end
  known[text] = numbers
  return numbers
end})
local name_of = setmetatable({}, {__index = function(known, text)
  local name = string.match(text, '^%u+')
  known[text] = name
  return name
end})

-- Which commands this user may run on which keys; deliveries of one batch often have keys in common.
local allowed = setmetatable({}, {__index = function(known, name)
  known[name] = setmetatable({}, {__index = function(keys, key)
    keys[key] = may(name, key)
    return keys[key]
  end})
  return known[name]
end})

-- Nothing if all effects can be applied; and where the values of what follows begin.
local function check_effects(effects, keys, at)
  -- Per key, what the effects so far leave: whether it was deleted, and what an increment would
  -- find in it. A key that is in here has the right type.
  local known = {}
  for i = 1, effects do
    local name, key, count = name_of[ARGV[at]], KEYS[keys + i], numbers_of[ARGV[at]][1]
    if count > MOST_VALUES then
      return {'INVALID', name .. ' on ' .. key .. ' has ' .. count .. ' values, more than ' .. MOST_VALUES}
    end
    if name == 'NEWER' then must_be_able(key, 'HMGET', 'HSET') elseif name ~= 'COUNT' and not allowed[name][key] then refuse(key, name) end
    local kind = TYPES[name]
    if kind and not known[key] then
      local why = check_type(key, kind)
      if why then return {'INVALID', why} end
    end
    if name == 'DEL' then
      known[key] = {fields = {}, gone = true}
    elseif effects > 1 or name == 'INCRBY' or name == 'HINCRBY' then -- a single effect leaves nothing to another
      known[key] = known[key] or {fields = {}}
      local why = follow(known[key], name, key, count, at + 1)
      if why then return {'INVALID', why} end
    end
    at = at + 1 + count
  end
  return nil, at
end

-- Counts what was appended to the event store. Numbers for people: what stands against them (another type, no right)
-- must not stand against the events. So their key is no key of the script, and what Redis answers is not minded.
local function tally(sizes, entity, more)
  if not allowed['HINCRBY'][sizes] then return end
  for what, by in pairs(more) do
    if by ~= '0' then redis.pcall('HINCRBY', sizes, entity .. ':' .. what, by) end
  end
end

local function apply(effects, keys, at)
  for i = 1, effects do
    local name, key, count = name_of[ARGV[at]], KEYS[keys + i], numbers_of[ARGV[at]][1]
    if name == 'COUNT' then
      tally(ARGV[at + 1], ARGV[at + 2], {entities = ARGV[at + 3], events = ARGV[at + 4], bytes = ARGV[at + 5]})
    elseif name == 'NEWER' then -- value, event time (µs), event id: the later event wins, the id breaks ties
      local value, time, id = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
      local last, by = unpack(call('HMGET', key, 'at', 'by'))
      last = last and tonumber(last) and last -- what this effect did not write is as old as can be
      local newer = not last or tonumber(time) > tonumber(last) or (time == last and id > (by or ''))
      if newer then call('HSET', key, 'value', value, 'at', time, 'by', id) end
    else
      call(name, key, unpack(ARGV, at + 1, at + count))
      if name == 'DEL' then typed[key] = nil end
    end
    at = at + 1 + count
  end
end

local function check_follow_ups(count, inbox)
  if count == 0 then return end
  must_be_able(inbox, 'XADD')
  must_take_more(inbox)
end

local function publish(count, inbox, at)
  for _ = 1, count do
    call('XADD', inbox, '*', 'event', ARGV[at], 'hops', ARGV[at + 1])
    at = at + 2
  end
end
