-- State: tokens, and at what time there were so many.
local tokens, at = burst, now
local state = redis.call('GET', key)
if state then
  tokens, at = struct.unpack('<dd', state)
  if at > now then -- the clock was set back: fill on from here
    keep(struct.pack('<dd', tokens, now), (burst - tokens) / rate)
  else
    tokens = math.min(burst, tokens + (now - at) * rate)
  end
end

if burst - tokens + cost > most then
  return answer(false, tokens, (cost - tokens) / rate, (burst - tokens) / rate)
end
if cost > 0 then
  tokens = tokens - cost
  keep(struct.pack('<dd', tokens, now), (burst - tokens) / rate)
end
return answer(true, tokens, 0, (burst - tokens) / rate)
