-- Routes a batch of the inbox: each entry ends in its domain stream, in `scheduled` until it is due,
-- in dead:router or, as a duplicate, nowhere; and leaves the inbox in the same step.
-- KEYS: inbox, dead:router, stats:router, attempts, n seen buckets (the current one first), target streams,
--   scheduled and scheduled:events if any of it is to be delivered later, audit if it is audited
-- ARGV: group, consumer, n, life of a bucket (ms), now (RFC 3339), contiguous ('1': the inbox has nothing else between first and last),
--   refusals ('1': there are any), number of target streams, number of routes, each: target key index, type, to, hops
--     (of what is to be delivered later: 0, type, due (ms), hops), audited ('1' or '0');
--   then per entry: id, count, route (its number, or 0), and
--     of a route: event id, content hash, event
--     of 0: number of values, fields of the letter
--     if it is audited: who published it, or ''
-- Answers {routed, duplicates, conflicts, refused, fenced, scheduled}.
must_be(KEYS[1], 'stream')
local inbox, dead, stats, attempts = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local group, consumer, buckets = ARGV[1], ARGV[2], tonumber(ARGV[3])
local call, ARGV = redis.call, ARGV -- looked up for each event
must_be(dead, 'stream')
must_be(stats, 'hash')
must_be(attempts, 'hash')
must_be_able(inbox, 'XACK', 'XDEL', 'XTRIM', 'XRANGE')
must_be_able(dead, 'XADD')
must_be_able(stats, 'HINCRBY')
must_be_able(attempts, 'HDEL')
must_be_able(KEYS[5], 'HSET', 'PTTL', 'PEXPIRE')
for i = 5, 4 + buckets do must_be(KEYS[i], 'hash') end
local last_target = 4 + buckets + ARGV[8]
for i = 5 + buckets, last_target do
  must_be(KEYS[i], 'stream')
  must_be_able(KEYS[i], 'XADD')
  must_take_more(KEYS[i])
end
must_take_more(dead)
local due_times, waiting, audit
if #KEYS > last_target + 1 then due_times, waiting = KEYS[last_target + 1], KEYS[last_target + 2] end
if due_times then
  must_be(due_times, 'zset')
  must_be(waiting, 'hash')
  must_be_able(due_times, 'ZADD')
  must_be_able(waiting, 'HGET', 'HSET')
end

local routes, position = {}, 10
for i = 1, tonumber(ARGV[9]) do
  routes[tostring(i)] = {
    stream = KEYS[tonumber(ARGV[position])], type = ARGV[position + 1], to = ARGV[position + 2], hops = ARGV[position + 3],
  }
  position = position + 4
end

local more = 0 -- arguments of each entry, if it is audited
if ARGV[position] == '1' then
  more, audit = 1, KEYS[#KEYS]
  must_be(audit, 'stream')
  must_be_able(audit, 'XADD')
  must_take_more(audit)
end
position = position + 1

-- What of the batch is still ours.
local first, held = position, nil
-- Asking is saved where this router holds all there is, and this batch is the oldest of it.
local ours = ARGV[7] == '0' and holds_all(inbox, group, consumer, attempts) == ARGV[position]
if not ours then
  local ids = {}
  while position <= #ARGV do
    ids[#ids + 1] = ARGV[position]
    position = position + (ARGV[position + 2] == '0' and 4 + ARGV[position + 3] or 6) + more
  end
  held = fence_all(inbox, group, consumer, ids)
  position = first
end
local at, ids, event_ids, fenced = {}, {}, {}, 0
while position <= #ARGV do
  local id, size = ARGV[position], 6
  local refusal = ARGV[position + 2] == '0'
  if refusal then
    size = 4 + ARGV[position + 3]
    if size > MOST_VALUES then error({err = 'ERR the letter of entry ' .. id .. ' has too many fields'}) end
  end
  if not held or held(id, ARGV[position + 1]) == 'HELD' then
    at[#at + 1] = position
    ids[#ids + 1] = id
    if not refusal then event_ids[#event_ids + 1] = ARGV[position + 3] end
  else
    fenced = fenced + 1
  end
  position = position + size + more
end

local seen = {}
for bucket = 5, 4 + buckets do
  if call('EXISTS', KEYS[bucket]) == 1 then
    in_slices(event_ids, function(...)
      local slice = {...}
      for i, hash in ipairs(call('HMGET', KEYS[bucket], ...)) do
        if hash then seen[slice[i]] = hash end
      end
    end)
  end
end
local troubled = call('EXISTS', attempts) == 1
-- The content of an event that waits to be delivered, which may be longer than it is remembered as seen.
local function content_waiting(event_id)
  local event = call('HGET', waiting, event_id)
  return event and (string.match(event, '^%d+ (%S+) ') or '')
end

-- Whoever acknowledges an entry routes it, so this is the first write, and nothing below can fail.
local acknowledged, gone, lost = 0, {}, 0
in_slices(ids, function(...) acknowledged = acknowledged + call('XACK', inbox, group, ...) end)
local routed, duplicates, conflicts, refused, scheduled, mark = 0, 0, 0, 0, 0, {}
if acknowledged < #ids then -- what was routed before left the inbox; the first was surely owed
  local missing = 0
  for i, id in ipairs(ids) do
    gone[i] = i > 1 and #call('XRANGE', inbox, id, id) == 0
    if gone[i] then missing = missing + 1 end
  end
  fenced = fenced + #ids - acknowledged
  lost = missing - (#ids - acknowledged) -- deleted by hand while it was owed
end
for i, at in ipairs(at) do
  local id, route = ids[i], routes[ARGV[at + 2]]
  if gone[i] then -- nothing is left to do
  elseif not route then
    local last = at + 3 + ARGV[at + 3]
    call('XADD', dead, '*', unpack(ARGV, at + 4, last))
    refused = refused + 1
    if audit then record_refusal(audit, ARGV[5], ARGV[last + 1], at + 4, last, dead) end
  else
    local event_id, hash = ARGV[at + 3], ARGV[at + 4]
    local stream, before, outcome, place = route.stream, seen[event_id], 'duplicate', nil
    if not before and not stream then before = content_waiting(event_id) end
    if not before then
      seen[event_id] = hash
      if stream then
        routed, outcome, place = routed + 1, 'routed', stream
      else
        scheduled, outcome, place = scheduled + 1, 'scheduled', due_times
      end
      local marked = 2 * (routed + scheduled)
      mark[marked - 1] = event_id
      mark[marked] = hash
      if not stream then
        call('ZADD', due_times, route.to, event_id)
        call('HSET', waiting, event_id, route.hops .. ' ' .. hash .. ' ' .. ARGV[at + 5])
      elseif route.hops == '0' then
        call('XADD', stream, '*', 'id', event_id, 'type', route.type, 'to', route.to, 'event', ARGV[at + 5])
      else
        call('XADD', stream, '*', 'id', event_id, 'type', route.type, 'to', route.to, 'event', ARGV[at + 5],
          'hops', route.hops)
      end
    elseif before == hash then
      duplicates = duplicates + 1
    else
      call('XADD', dead, '*', 'id', event_id, 'type', route.type, 'event', ARGV[at + 5],
        'stream', 'inbox', 'entry', id, 'subscriber', 'router', 'reason', 'event_id_conflict',
        'error', 'event ' .. event_id .. ' was seen before with another type, version or data',
        'errors', '[]', 'hops', route.hops, 'died', ARGV[5])
      conflicts, outcome, place = conflicts + 1, 'refused:event_id_conflict', dead
    end
    if audit then record(audit, ARGV[5], event_id, route.type, ARGV[at + 6], outcome, place) end
  end
end
in_slices(mark, function(...) call('HSET', KEYS[5], ...) end)
if routed + scheduled > 0 and call('PTTL', KEYS[5]) < 0 then call('PEXPIRE', KEYS[5], ARGV[4]) end
if troubled then
  for _, id in ipairs(ids) do forget(attempts, id) end
end

-- All of these are settled, and leave the inbox: cut off where they are its head, which costs a
-- fifth of deleting them one by one.
if #ids > 0 then
  local head, last = call('XRANGE', inbox, '-', '+', 'COUNT', 1)[1], ids[#ids]
  if ARGV[6] == '1' and fenced == 0 and head and head[1] == ids[1] and id_after(last) ~= last then
    call('XTRIM', inbox, 'MINID', '=', id_after(last))
  else
    in_slices(ids, function(...) call('XDEL', inbox, ...) end)
  end
end
for name, n in pairs({routed = routed, duplicates = duplicates, refused = refused + conflicts, lost = lost,
  scheduled = scheduled}) do
  if n > 0 then call('HINCRBY', stats, name, n) end
end
return {routed, duplicates, conflicts, refused, fenced, scheduled}
