-- Commits deliveries that have no effects: many in one call.
-- KEYS: stream, attempts
-- ARGV: group, consumer, delete ('1': the stream keeps no history), then per delivery, in the order of IDs: id, count, troubled ('1'/'0')
-- Answers how many are {done, gone, fenced}.
must_be(KEYS[1], 'stream')
must_be(KEYS[2], 'hash')
must_be_able(KEYS[1], 'XACK')
if ARGV[3] == '1' then must_be_able(KEYS[1], 'XDEL') end
local ids, troubled, gone, fenced = {}, {}, 0, 0
local function settle(i)
  ids[#ids + 1] = ARGV[i]
  if ARGV[i + 2] == '1' then troubled[#troubled + 1] = ARGV[i] end
end
if holds_all(KEYS[1], ARGV[1], ARGV[2], KEYS[2]) then
  for i = 4, #ARGV, 3 do settle(i) end
else
  local all = {}
  for i = 4, #ARGV, 3 do all[#all + 1] = ARGV[i] end
  local held = fence_all(KEYS[1], ARGV[1], ARGV[2], all)
  for i = 4, #ARGV, 3 do
    local state = held(ARGV[i], ARGV[i + 1])
    if state == 'HELD' then settle(i) elseif state == 'GONE' then gone = gone + 1 else fenced = fenced + 1 end
  end
end
if #troubled > 0 then must_be_able(KEYS[2], 'HDEL') end
for _, id in ipairs(troubled) do forget(KEYS[2], id) end
local done = 0
in_slices(ids, function(...) done = done + redis.call('XACK', KEYS[1], ARGV[1], ...) end)
if ARGV[3] == '1' then
  in_slices(ids, function(...) redis.call('XDEL', KEYS[1], ...) end)
end
return {done, gone + #ids - done, fenced}
