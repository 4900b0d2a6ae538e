-- After the server's clock was set back: deliveries from before would be idle for less than
-- nothing until it is there again, and nobody could claim them. Those restart: what waits at a
-- reserved consumer is due now (whoever parked it measured by the other clock); what a worker has
-- gets a whole lease, in which the living renew it and after which that of the dead is claimed.
-- KEYS: stream, attempts, stats
-- ARGV: group, lease (ms), where to go on ('-' or '(' and an ID), how many to look at
-- Answers {how many were restarted, the last ID looked at, or '' at the end}.
must_be_claimable(KEYS[1], KEYS[2], KEYS[3])
local pending = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], '+', ARGV[4])
local restarted = 0
for _, entry in ipairs(pending) do
  local id, owner, idle, count = unpack(entry)
  -- Less than nothing is shown as nothing. What is idle for just nothing is not harmed.
  if idle == 0 then
    local parked = owner == 'retry' or owner == 'released'
    local moved = redis.call('XCLAIM', KEYS[1], ARGV[1], owner, 0, id,
      'IDLE', parked and ARGV[2] or 0, 'RETRYCOUNT', count, 'JUSTID')
    if #moved == 0 then
      count_lost(KEYS[2], KEYS[3], id)
    elseif parked then
      redis.call('HDEL', KEYS[2], id .. ':due')
    end
    restarted = restarted + 1
  end
end
return {restarted, #pending == tonumber(ARGV[4]) and pending[#pending][1] or ''}
