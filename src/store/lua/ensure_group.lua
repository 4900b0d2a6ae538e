-- Makes sure that a group exists, unless it existed before and was lost: then only the
-- operator may say where it goes on (at 0 it would repeat everything, at $ it would lose).
-- KEYS: fleet, stream
-- ARGV: group, field of the group in fleet, start ID, lease (ms), 'ensure' or 'recreate'
-- Answers CREATED, EXISTS or LOST.
must_be(KEYS[1], 'hash')
must_be(KEYS[2], 'stream')
local exists, last = false, '0-0'
if redis.call('EXISTS', KEYS[2]) == 1 then
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[2])) do
    if info[2] == ARGV[1] then exists = true end
  end
  local info = redis.call('XINFO', 'STREAM', KEYS[2])
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then last = info[i + 1] end
  end
end
local known = redis.call('HGET', KEYS[1], ARGV[2])
if known and not exists and ARGV[5] ~= 'recreate' then return 'LOST' end
if not exists then redis.call('XGROUP', 'CREATE', KEYS[2], ARGV[1], ARGV[3], 'MKSTREAM') end
-- lease:joined; what is not newer than `joined` was routed before this group existed.
local joined = last
if known and exists then joined = string.match(known, ':(.*)$') or last end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[4] .. ':' .. joined)
return exists and 'EXISTS' or 'CREATED'
