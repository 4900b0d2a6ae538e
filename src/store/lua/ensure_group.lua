-- Makes sure that a group exists, unless it existed before and was lost: then only the
-- operator may say where it goes on (at 0 it would repeat everything, at $ it would lose).
-- KEYS: fleet, stream, attempts
-- ARGV: group, field of the group in fleet, start ID, lease (ms), mode: 'ensure', 'recreate' (it
--       even if it was lost), 'look' (create nothing) or 'check' (the same, and whether it could be created)
-- Answers CREATED, EXISTS, LOST, or RETIRED (only to a look or a check: fleet does not know it).
must_be(KEYS[1], 'hash')
must_be(KEYS[2], 'stream')
local recreate = ARGV[5] == 'recreate'
if recreate then must_be_able(KEYS[3], 'DEL') end
if ARGV[5] ~= 'look' then
  must_be_able_to(KEYS[2], 'XGROUP', 'CREATE')
  must_be_able(KEYS[1], 'HSET')
end
local exists, last, added = false, '0-0', 0
if redis.call('EXISTS', KEYS[2]) == 1 then
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[2])) do
    if info[2] == ARGV[1] then exists = true end
  end
  local info = redis.call('XINFO', 'STREAM', KEYS[2])
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then last = info[i + 1] end
    if info[i] == 'entries-added' then added = info[i + 1] end
  end
end
local known = redis.call('HGET', KEYS[1], ARGV[2])
if known and not exists and not recreate then return 'LOST' end
if ARGV[5] == 'look' or ARGV[5] == 'check' then return known and 'EXISTS' or 'RETIRED' end
if not exists then
  -- Told how many entries came before, Redis knows the lag of a group that starts at the end.
  local read = ARGV[3] == '$' and added or ARGV[3] == '0' and 0 or -1
  redis.call('XGROUP', 'CREATE', KEYS[2], ARGV[1], ARGV[3], 'MKSTREAM', 'ENTRIESREAD', read)
  -- What was known of deliveries went with the list of those that were owed.
  if recreate then redis.call('DEL', KEYS[3]) end
end
-- lease:joined; what is not newer than `joined` was routed before this group existed.
local joined = last
if known then joined = string.match(known, ':(.*)$') or last end
-- A process with an older file may still renew by a longer lease: it never shrinks by itself.
local lease = known and not recreate and string.match(known, '^%d+') or ARGV[4]
if tonumber(lease) < tonumber(ARGV[4]) then lease = ARGV[4] end
redis.call('HSET', KEYS[1], ARGV[2], lease .. ':' .. joined)
return exists and 'EXISTS' or 'CREATED'
