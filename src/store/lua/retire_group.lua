-- Retires a group for good. What it still owes is given up, so the caller asked for consent.
-- KEYS: fleet, stream, attempts
-- ARGV: group, field of the group in fleet, '1' to give up what is unsettled
-- Answers RETIRED, ABSENT or OWES.
must_be(KEYS[1], 'hash')
must_be(KEYS[2], 'stream')
must_be(KEYS[3], 'hash')
must_be_able(KEYS[1], 'HDEL')
must_be_able_to(KEYS[2], 'XGROUP', 'DESTROY')
must_be_able(KEYS[3], 'DEL')
local exists, owes = false, false
if redis.call('EXISTS', KEYS[2]) == 1 then
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[2])) do
    local group = {}
    for i = 1, #info, 2 do group[info[i]] = info[i + 1] end
    if group.name == ARGV[1] then
      exists = true
      local next_entry = redis.call('XRANGE', KEYS[2], '(' .. group['last-delivered-id'], '+', 'COUNT', 1)
      owes = group.pending > 0 or #next_entry > 0
    end
  end
end
if owes and ARGV[3] ~= '1' then return 'OWES' end
local known = redis.call('HDEL', KEYS[1], ARGV[2])
redis.call('DEL', KEYS[3])
if exists then redis.call('XGROUP', 'DESTROY', KEYS[2], ARGV[1]) end
return (exists or known == 1) and 'RETIRED' or 'ABSENT'
