-- Deletes a consumer that owns nothing; deleting one that does would drop its deliveries.
-- KEYS: stream
-- ARGV: group, consumer
-- Answers 1 if it was deleted.
must_be(KEYS[1], 'stream')
for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  if info[2] == ARGV[2] and info[4] == 0 then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
    return 1
  end
end
return 0
