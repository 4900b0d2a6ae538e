-- Put before every script. Scripts do not roll back, so each checks everything first.

-- Whether a delivery is still ours: 'HELD', 'GONE' (settled, or not pending) or 'FENCED'
-- (another consumer has it, or we have it again under another count).
local function fence(stream, group, consumer, id, count)
  local pending = redis.call('XPENDING', stream, group, id, id, 1)[1]
  if not pending then return 'GONE' end
  if pending[2] ~= consumer or pending[4] ~= tonumber(count) then return 'FENCED' end
  return 'HELD'
end

-- The same for many deliveries in the order of their IDs: what this consumer holds between the
-- first and the last is asked for at once, and what that does not tell one by one.
local function fence_all(stream, group, consumer, ids)
  local counts = {}
  if #ids > 1 then
    for _, p in ipairs(redis.call('XPENDING', stream, group, ids[1], ids[#ids], 4 * #ids, consumer)) do
      counts[p[1]] = p[4]
    end
  end
  return function(id, count)
    if counts[id] == tonumber(count) then return 'HELD' end
    return fence(stream, group, consumer, id, count)
  end
end

-- Whether nobody but this consumer holds anything of the group, each under the count 1 (whoever
-- claims leaves a record in `attempts`). Then whatever is pending is ours, and asking for each
-- delivery (which costs more than to settle it) can be saved: an acknowledgement that Redis counts
-- was of a delivery that was still owed, and owed by us. Answers the first such delivery.
local function holds_all(stream, group, consumer, attempts)
  if redis.call('EXISTS', attempts) == 1 then return false end
  local _, first, _, holders = unpack(redis.call('XPENDING', stream, group))
  return holders and #holders == 1 and holders[1][1] == consumer and first
end

-- Stops the script, before anything was written, unless the key is absent or of that type.
local function must_be(key, kind)
  local actual = redis.call('TYPE', key).ok
  if actual ~= 'none' and actual ~= kind then
    error({err = 'WRONGTYPE key ' .. key .. ' is a ' .. actual .. ', expected a ' .. kind})
  end
end

-- The highest ID that a stream ever gave out, if there is a stream. (With XINFO come two payloads,
-- so what follows is known for as long as a script runs.)
local function last_id(key)
  local info = redis.call('EXISTS', key) == 1 and redis.call('XINFO', 'STREAM', key) or {}
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then return info[i + 1] end
  end
end

-- Stops the script, before anything was written, if the stream has used up its IDs: nothing can
-- be appended to it any more.
local known_to_take_more = {}
local function must_take_more(key)
  if not known_to_take_more[key] and string.match(last_id(key) or '', '^18446744073709551615%-') then
    error({err = 'WRONGTYPE stream ' .. key .. ' has used up its IDs'})
  end
  known_to_take_more[key] = true
end

-- Stops the script, before anything was written, unless its user may run these commands: an ACL
-- that lacks one of them would stop it half-way, and its repetitions would do that half again.
local function refuse(key, command)
  error({err = 'NOPERM this user may not run ' .. command .. ' on ' .. key .. ': grant it with ACL SETUSER'})
end
local function must_be_able(key, ...)
  for _, command in ipairs({...}) do
    if not redis.acl_check_cmd(command, key) then refuse(key, command) end
  end
end
local function must_be_able_to(key, container, command)
  if not redis.acl_check_cmd(container, command, key) then refuse(key, container .. '|' .. command) end
end

-- The same checks for claiming an entry: it changes hands or, if it was deleted under us, is
-- forgotten and counted.
local function must_be_claimable(stream, attempts, stats)
  must_be(stream, 'stream')
  must_be(attempts, 'hash')
  must_be(stats, 'hash')
  must_be_able(stream, 'XCLAIM')
  must_be_able(attempts, 'HDEL')
  must_be_able(stats, 'HINCRBY')
end

local function forget(attempts, id)
  redis.call('HDEL', attempts, id, id .. ':starts', id .. ':due', id .. ':claimed')
end

-- Counts an entry that was deleted under us; Redis has dropped it from the pending list.
local function count_lost(attempts, stats, id)
  forget(attempts, id)
  redis.call('HINCRBY', stats, 'lost', 1)
end

local function id_parts(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end

local function older(a, b)
  local a_ms, a_seq = id_parts(a)
  local b_ms, b_seq = id_parts(b)
  return a_ms < b_ms or (a_ms == b_ms and a_seq < b_seq)
end

-- The smallest ID above this one; itself where a double cannot count on (a group that starts at a
-- time is at <ms>-<2^64-1>).
local function id_after(id)
  local ms, seq = id_parts(id)
  if ms >= 2 ^ 53 or seq >= 2 ^ 53 then return id end
  return string.format('%.0f-%.0f', ms, seq + 1)
end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- What the audit keeps of an event; what is not known or does not apply ('' or nil) is left out.
local function record(audit, at, id, type, source, outcome, stream)
  local fields = {}
  for _, field in ipairs({{'id', id}, {'type', type}, {'source', source}, {'at', at}, {'outcome', outcome}, {'stream', stream}}) do
    if field[2] and field[2] ~= '' then
      fields[#fields + 1] = field[1]
      fields[#fields + 1] = field[2]
    end
  end
  redis.call('XADD', audit, '*', unpack(fields))
end
-- The same of a refused event, whose letter is ARGV[from] to ARGV[to].
local function record_refusal(audit, at, source, from, to, dead)
  local letter = {}
  for i = math.min(to - 1, from + 30), from, -2 do letter[ARGV[i]] = ARGV[i + 1] end -- the first of a name; ours come first
  record(audit, at, letter.id, letter.type, source, 'refused:' .. (letter.reason or ''), dead)
end

-- Lua gives up at about 8000 values on its stack: variadic commands go in slices, and what
-- cannot be cut (the fields of one entry) is refused before anything was written.
local MOST_VALUES = 7000
local function in_slices(list, call)
  for from = 1, #list, 4000 do
    call(unpack(list, from, math.min(from + 3999, #list)))
  end
end
