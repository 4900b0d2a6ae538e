-- Puts a rebuilt read model in the place of the live one: keys, position of the live group, and dead
-- letters, all in one step. What the live group has in hand or waits to try again is settled with it:
-- the new model has it, or its letter. Handlers that are at work on it are fenced, so nothing that
-- was made of the old model gets into the new one.
-- KEYS: fleet, dead letters of the live group, dead letters of the shadow, redrive stream, s domain streams,
--   then u keys to be unlinked (the old model among them), then pairs: key of the shadow, key that it becomes
-- ARGV: live group, shadow group, number of the rebuild, field of fleet for it, s, u, position of the live group on
--   the redrive stream, then s times: field of the live group in fleet, field of the shadow group, position of
--   the live group, how many it has pending; then the IDs of letters of the live group that are to stay
-- Answers DONE (also to a repetition), or why nothing was written:
--   MOVED    the live group has read or settled something since its keys were looked for
--   OWES     the shadow has not settled everything that it has read
--   BEHIND   the shadow has not read everything that the live group has read
--   REDRIVE  letters are on their way back to the live group
--   STREAMS  the live group has other streams than these
--   LOST     a group of the live subscriber is not there
--   GONE     the shadow is not there
local fleet, dead, shadow_dead, redrive = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local live, shadow, number = ARGV[1], ARGV[2], ARGV[3]
local streams, unlinked = tonumber(ARGV[5]), tonumber(ARGV[6])
local first_unlinked, first_pair, first_letter = 5 + streams, 5 + streams + unlinked, 8 + 4 * streams
must_be(fleet, 'hash')
must_be(dead, 'stream')
must_be(shadow_dead, 'stream')
must_be(redrive, 'stream')
if redis.call('HGET', fleet, ARGV[4]) == number then return 'DONE' end

local function group_of(stream, name)
  must_be(stream, 'stream')
  if redis.call('EXISTS', stream) == 0 then return nil end
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    if info[2] == name then
      local group = {}
      for i = 1, #info, 2 do group[info[i]] = info[i + 1] end
      return group
    end
  end
end

-- What routing.yaml added meanwhile would be in the old model and not in the new one.
local expected, suffix = {}, ':' .. live
for i = 1, streams do expected[ARGV[4 + 4 * i]] = true end
for _, field in ipairs(redis.call('HKEYS', fleet)) do
  local ours = string.sub(field, 1, 6) == 'group:' and string.sub(field, -#suffix) == suffix
  if ours and not expected[field] and string.sub(field, 1, 14) ~= 'group:redrive:' then return 'STREAMS' end
end

local back = group_of(redrive, live)
if not back then return 'LOST' end
if redis.call('XLEN', redrive) > 0 then return 'REDRIVE' end
if back['last-delivered-id'] ~= ARGV[7] then return 'MOVED' end
local groups = {}
for i = 1, streams do
  local stream, at = KEYS[4 + i], 4 + 4 * i
  local ours, new = group_of(stream, live), group_of(stream, shadow)
  if not new or redis.call('HEXISTS', fleet, ARGV[at + 1]) == 0 then return 'GONE' end
  if not ours then return 'LOST' end
  if ours['last-delivered-id'] ~= ARGV[at + 2] or ours.pending ~= tonumber(ARGV[at + 3]) then return 'MOVED' end
  if new.pending > 0 then return 'OWES' end
  local position = new['last-delivered-id']
  -- (A group that starts at a time may be ahead of all that there is.)
  if older(position, ours['last-delivered-id']) and older(position, last_id(stream) or '0-0') then return 'BEHIND' end
  groups[i] = {new = new, ahead = older(ours['last-delivered-id'], position), pending = ours.pending}
end

must_be_able(fleet, 'HDEL', 'HSET')
must_be_able(dead, 'UNLINK')
must_be_able(shadow_dead, 'XADD')
local function must_be_able_to_rename(from, to)
  if not redis.acl_check_cmd('RENAME', from, to) then refuse(from, 'RENAME') end
end
must_be_able_to_rename(shadow_dead, dead)
for i = 5, 4 + streams do
  must_be_able(KEYS[i], 'XACK')
  must_be_able_to(KEYS[i], 'XGROUP', 'SETID')
  must_be_able_to(KEYS[i], 'XGROUP', 'DESTROY')
end
for i = first_unlinked, first_pair - 1 do must_be_able(KEYS[i], 'UNLINK') end
for i = first_pair, #KEYS, 2 do must_be_able_to_rename(KEYS[i], KEYS[i + 1]) end
if #ARGV >= first_letter then must_take_more(shadow_dead) end

-- How many entries came before a position, if nothing was ever cut off; -1 lets Redis find out itself.
local function entries_read(stream, group)
  local info = redis.call('XINFO', 'STREAM', stream)
  for i = 1, #info, 2 do
    if info[i] == 'entries-added' and info[i + 1] ~= redis.call('XLEN', stream) then return -1 end
  end
  return tonumber(group['entries-read']) or -1
end

-- The first write; nothing below can fail.
for i, group in ipairs(groups) do
  local stream, at = KEYS[4 + i], 4 + 4 * i
  while group.pending > 0 do
    local owed = redis.call('XPENDING', stream, live, '-', '+', 1000)
    if #owed == 0 then break end
    local ids = {}
    for n, entry in ipairs(owed) do ids[n] = entry[1] end
    redis.call('XACK', stream, live, unpack(ids))
  end
  if group.ahead then
    -- Told how many entries came before, Redis knows the lag.
    redis.call('XGROUP', 'SETID', stream, live, group.new['last-delivered-id'], 'ENTRIESREAD',
      entries_read(stream, group.new))
  end
  redis.call('XGROUP', 'DESTROY', stream, shadow)
  redis.call('HDEL', fleet, ARGV[at + 1])
end
for from = first_unlinked, first_pair - 1, 4000 do
  redis.call('UNLINK', unpack(KEYS, from, math.min(from + 3999, first_pair - 1)))
end
for i = first_pair, #KEYS, 2 do
  -- It may have expired since it was found.
  if redis.call('EXISTS', KEYS[i]) == 1 then redis.call('RENAME', KEYS[i], KEYS[i + 1]) end
end
-- The letters of the old model are settled by the new one: one that was sent back into it would count twice.
for i = first_letter, #ARGV do
  local letter = redis.call('XRANGE', dead, ARGV[i], ARGV[i])[1]
  if letter then redis.call('XADD', shadow_dead, '*', unpack(letter[2])) end
end
redis.call('UNLINK', dead)
if redis.call('EXISTS', shadow_dead) == 1 then redis.call('RENAME', shadow_dead, dead) end
redis.call('HSET', fleet, ARGV[4], number)
return 'DONE'
