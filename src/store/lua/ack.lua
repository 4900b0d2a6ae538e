-- Commits deliveries that have no effects: many in one call.
-- KEYS: stream, attempts
-- ARGV: group, consumer, delete ('1': the stream keeps no history), n, then n times: id, count of a delivery that has a
--   record in attempts or a count other than 1; then the ids of all others; both in the order of IDs
-- Answers how many are {done, gone, fenced}.
must_be(KEYS[1], 'stream')
must_be(KEYS[2], 'hash')
must_be_able(KEYS[1], 'XACK')
if ARGV[3] == '1' then must_be_able(KEYS[1], 'XDEL') end
local stream, group, plain = KEYS[1], ARGV[1], 5 + 2 * tonumber(ARGV[4])
local ids, troubled, gone, fenced, done = {}, {}, 0, 0, 0
local all_ours = holds_all(stream, group, ARGV[2], KEYS[2])
-- What of ARGV[from], ARGV[from + step] … is ours; `count` of each.
local function sort(from, to, step, count)
  local mine = {}
  for i = from, to, step do mine[#mine + 1] = ARGV[i] end
  local held = not all_ours and fence_all(stream, group, ARGV[2], mine)
  for i = from, to, step do
    local state = held and held(ARGV[i], count or ARGV[i + 1]) or 'HELD'
    if state == 'HELD' then
      ids[#ids + 1] = ARGV[i]
      if not count then troubled[#troubled + 1] = ARGV[i] end
    elseif state == 'GONE' then
      gone = gone + 1
    else
      fenced = fenced + 1
    end
  end
end
if all_ours and plain == 5 and ARGV[3] == '0' then -- the usual case: nothing to sort
  for from = plain, #ARGV, 4000 do
    done = done + redis.call('XACK', stream, group, unpack(ARGV, from, math.min(from + 3999, #ARGV)))
  end
  return {done, #ARGV - plain + 1 - done, 0}
end
sort(5, plain - 1, 2)
sort(plain, #ARGV, 1, '1')
if #troubled > 0 then must_be_able(KEYS[2], 'HDEL') end
for _, id in ipairs(troubled) do forget(KEYS[2], id) end
in_slices(ids, function(...) done = done + redis.call('XACK', stream, group, ...) end)
if ARGV[3] == '1' then
  in_slices(ids, function(...) redis.call('XDEL', stream, ...) end)
end
return {done, gone + #ids - done, fenced}
