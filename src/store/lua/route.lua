-- Routes a batch of the inbox: each entry ends in its domain stream, in dead:router or, as a
-- duplicate, nowhere; and leaves the inbox in the same step.
-- KEYS: inbox, dead:router, stats:router, attempts, n seen buckets (the current one first), target streams
-- ARGV: group, consumer, n, life of a bucket (ms), now (RFC 3339), first id, last id, then per entry:
--   id, count, 'route', event id, content hash, target key index, type, to, hops, event
--   id, count, 'dead', number of values, fields of the letter
-- Answers {routed, duplicates, conflicts, refused, fenced}.
must_be(KEYS[1], 'stream')
local inbox, dead, stats, attempts = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local group, consumer, buckets = ARGV[1], ARGV[2], tonumber(ARGV[3])
must_be(dead, 'stream')
must_be(stats, 'hash')
must_be(attempts, 'hash')
must_be_able(inbox, 'XACK', 'XDEL')
must_be_able(dead, 'XADD')
must_be_able(stats, 'HINCRBY')
must_be_able(attempts, 'HDEL')
must_be_able(KEYS[5], 'HSET', 'PTTL', 'PEXPIRE')
for i = 5, 4 + buckets do must_be(KEYS[i], 'hash') end
for i = 5 + buckets, #KEYS do
  must_be(KEYS[i], 'stream')
  must_be_able(KEYS[i], 'XADD')
end

-- The fence of the whole batch in one command: what this router holds between first and last.
local held = {}
for _, p in ipairs(redis.call('XPENDING', inbox, group, ARGV[6], ARGV[7], 100000, consumer)) do
  held[p[1]] = p[4]
end

local entries, ids, fenced, position = {}, {}, 0, 8
while position <= #ARGV do
  local size = ARGV[position + 2] == 'route' and 10 or 4 + ARGV[position + 3]
  if size > MOST_VALUES then error({err = 'ERR the letter of entry ' .. ARGV[position] .. ' has too many fields'}) end
  if held[ARGV[position]] == tonumber(ARGV[position + 1]) then
    entries[#entries + 1] = position
    if ARGV[position + 2] == 'route' then ids[#ids + 1] = ARGV[position + 3] end
  else
    fenced = fenced + 1
  end
  position = position + size
end

local seen = {}
for bucket = 5, 4 + buckets do
  in_slices(ids, function(...)
    local slice = {...}
    for i, hash in ipairs(redis.call('HMGET', KEYS[bucket], ...)) do
      if hash then seen[slice[i]] = hash end
    end
  end)
end

local routed, duplicates, conflicts, refused = 0, 0, 0, 0
local done, mark = {}, {}
for _, at in ipairs(entries) do
  local id = ARGV[at]
  done[#done + 1] = id
  if ARGV[at + 1] ~= '1' then forget(attempts, id) end
  if ARGV[at + 2] == 'dead' then
    redis.call('XADD', dead, '*', unpack(ARGV, at + 4, at + 3 + ARGV[at + 3]))
    refused = refused + 1
  else
    local event_id, hash, hops = ARGV[at + 3], ARGV[at + 4], ARGV[at + 8]
    if not seen[event_id] then
      seen[event_id] = hash
      mark[#mark + 1] = event_id
      mark[#mark + 1] = hash
      if hops == '0' then
        redis.call('XADD', KEYS[tonumber(ARGV[at + 5])], '*', 'id', event_id, 'type', ARGV[at + 6],
          'to', ARGV[at + 7], 'event', ARGV[at + 9])
      else
        redis.call('XADD', KEYS[tonumber(ARGV[at + 5])], '*', 'id', event_id, 'type', ARGV[at + 6],
          'to', ARGV[at + 7], 'event', ARGV[at + 9], 'hops', hops)
      end
      routed = routed + 1
    elseif seen[event_id] == hash then
      duplicates = duplicates + 1
    else
      redis.call('XADD', dead, '*', 'id', event_id, 'type', ARGV[at + 6], 'event', ARGV[at + 9],
        'stream', 'inbox', 'entry', id, 'subscriber', 'router', 'reason', 'event_id_conflict',
        'error', 'event ' .. event_id .. ' was seen before with another type, version or data',
        'errors', '[]', 'hops', hops, 'died', ARGV[5])
      conflicts = conflicts + 1
    end
  end
end
in_slices(mark, function(...) redis.call('HSET', KEYS[5], ...) end)
if #mark > 0 and redis.call('PTTL', KEYS[5]) < 0 then redis.call('PEXPIRE', KEYS[5], ARGV[4]) end
in_slices(done, function(...) redis.call('XACK', inbox, group, ...) end)
in_slices(done, function(...) redis.call('XDEL', inbox, ...) end)
for name, n in pairs({routed = routed, duplicates = duplicates, refused = refused + conflicts}) do
  if n > 0 then redis.call('HINCRBY', stats, name, n) end
end
return {routed, duplicates, conflicts, refused, fenced}
