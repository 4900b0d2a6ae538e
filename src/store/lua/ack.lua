-- Commits deliveries that have no effects: many in one call, each behind its own fence.
-- KEYS: stream, attempts
-- ARGV: group, consumer, delete ('1': the stream keeps no history), then per delivery: id, count, troubled ('1'/'0')
-- Answers per delivery: HELD (done), GONE, FENCED.
must_be(KEYS[1], 'stream')
must_be(KEYS[2], 'hash')
must_be_able(KEYS[1], 'XACK')
if ARGV[3] == '1' then must_be_able(KEYS[1], 'XDEL') end
local answers, held, troubled = {}, {}, {}
for i = 4, #ARGV, 3 do
  local id = ARGV[i]
  local state = fence(KEYS[1], ARGV[1], ARGV[2], id, ARGV[i + 1])
  answers[#answers + 1] = state
  if state == 'HELD' then
    held[#held + 1] = id
    if ARGV[i + 2] == '1' then troubled[#troubled + 1] = id end
  end
end
if #troubled > 0 then must_be_able(KEYS[2], 'HDEL') end
for _, id in ipairs(troubled) do forget(KEYS[2], id) end
in_slices(held, function(...) redis.call('XACK', KEYS[1], ARGV[1], ...) end)
if ARGV[3] == '1' then
  in_slices(held, function(...) redis.call('XDEL', KEYS[1], ...) end)
end
return answers
