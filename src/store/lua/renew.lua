-- A sign of life: restarts the lease of deliveries that are still ours.
-- KEYS: stream
-- ARGV: group, consumer, then per delivery: id, count
-- Answers per delivery: HELD (renewed), GONE, FENCED, LOST (the entry was deleted under us).
local answers = {}
for i = 3, #ARGV, 2 do
  local id = ARGV[i]
  local state = fence(KEYS[1], ARGV[1], ARGV[2], id, ARGV[i + 1])
  if state == 'HELD' and #redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, id, 'JUSTID') == 0 then
    state = 'LOST'
  end
  answers[#answers + 1] = state
end
return answers
