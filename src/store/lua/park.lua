-- Hands deliveries to a reserved consumer (`retry`, `released`) from which XAUTOCLAIM finds
-- them when they are due, whoever is alive then.
-- KEYS: stream, attempts, stats
-- ARGV: group, consumer, target, lease (ms), then per delivery: id, count, delay (ms), log ('' leaves it), starts without an outcome ('' leaves them)
-- Answers per delivery: HELD (done), GONE, FENCED, LOST (the entry was deleted under us).
must_be_claimable(KEYS[1], KEYS[2], KEYS[3])
must_be_able(KEYS[2], 'HSET')
local answers, lease, now = {}, tonumber(ARGV[4]), now_ms()
for i = 5, #ARGV, 5 do
  local id, count = ARGV[i], ARGV[i + 1]
  local state = fence(KEYS[1], ARGV[1], ARGV[2], id, count)
  if state == 'HELD' then
    -- Reclaiming finds what is idle for a lease: let it get there exactly when it is due.
    local delay = tonumber(ARGV[i + 2])
    local idle = string.format('%.0f', math.max(lease - delay, 0))
    local moved = redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[3], 0, id,
      'IDLE', idle, 'RETRYCOUNT', count, 'JUSTID')
    if #moved == 0 then
      count_lost(KEYS[2], KEYS[3], id)
      state = 'LOST'
    else
      redis.call('HSET', KEYS[2], id .. ':due', string.format('%.0f', now + delay))
      -- This start had an outcome: the marks are again those of before.
      if ARGV[i + 4] ~= '' then redis.call('HSET', KEYS[2], id .. ':starts', ARGV[i + 4]) end
      if ARGV[i + 3] ~= '' then redis.call('HSET', KEYS[2], id, ARGV[i + 3]) end
    end
  end
  answers[#answers + 1] = state
end
return answers
