-- A sign of life: restarts the lease of deliveries that are still ours.
-- KEYS: stream, attempts, stats
-- ARGV: group, consumer, then per delivery: id, count
-- Answers per delivery: HELD (renewed), GONE, FENCED, LOST (the entry was deleted under us).
must_be_claimable(KEYS[1], KEYS[2], KEYS[3])
local answers = {}
for i = 3, #ARGV, 2 do
  local id = ARGV[i]
  local state = fence(KEYS[1], ARGV[1], ARGV[2], id, ARGV[i + 1])
  if state == 'HELD' and #redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, id, 'JUSTID') == 0 then
    count_lost(KEYS[2], KEYS[3], id)
    state = 'LOST'
  end
  answers[#answers + 1] = state
end
return answers
