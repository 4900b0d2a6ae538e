-- Ends a probe. Enough that passed close the circuit breaker, one that failed opens it again.
-- KEYS: control, stats, inbox
-- ARGV: token, 'passed', 'failed' or 'back' (it ran nothing, or nothing came of it), how many must
--       pass, for how long it opens again (ms), why, the event that tells of the change, or ''
-- Answers GONE (the token is good no more: nothing is written), TAKEN, CLOSED or OPENED.
must_be(KEYS[1], 'hash')
local state, probes, passed, opened =
  unpack(redis.call('HMGET', KEYS[1], 'breaker', 'probes', 'passed', 'opened'))
if state ~= 'half-open' then return 'GONE' end
local others, known = {}, false
for token, expires in string.gmatch(probes or '', '(%S+)=(%d+)') do
  if token == ARGV[1] then known = true else others[#others + 1] = token .. '=' .. expires end
end
if not known then return 'GONE' end
passed = (tonumber(passed) or 0) + (ARGV[2] == 'passed' and 1 or 0)
local closes = ARGV[2] == 'passed' and passed >= tonumber(ARGV[3])
must_be_able(KEYS[1], 'HSET', 'HDEL')
if closes or ARGV[2] == 'failed' then
  must_be(KEYS[2], 'hash')
  must_be_able(KEYS[2], 'HINCRBY')
  if ARGV[6] ~= '' then
    must_be(KEYS[3], 'stream')
    must_be_able(KEYS[3], 'XADD')
    must_take_more(KEYS[3])
  end
end

if not closes and ARGV[2] ~= 'failed' then
  redis.call('HSET', KEYS[1], 'probes', table.concat(others, ' '), 'passed', passed)
  return 'TAKEN'
end
redis.call('HDEL', KEYS[1], 'probes', 'passed')
if ARGV[6] ~= '' then redis.call('XADD', KEYS[3], '*', 'event', ARGV[6]) end
if closes then
  redis.call('HDEL', KEYS[1], 'breaker', 'since', 'until', 'first', 'opened', 'why', 'flow')
  redis.call('HINCRBY', KEYS[2], 'closed', 1)
  return 'CLOSED'
end
local now, for_ms = now_ms(), tonumber(ARGV[4])
redis.call('HSET', KEYS[1], 'breaker', 'open', 'since', string.format('%.0f', now), 'until',
  string.format('%.0f', now + for_ms), 'opened', (tonumber(opened) or 0) + 1, 'why', ARGV[5])
redis.call('HINCRBY', KEYS[2], 'opened', 1)
return 'OPENED'
