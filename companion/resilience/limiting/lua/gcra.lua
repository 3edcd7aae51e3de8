-- State: the theoretical arrival, in units (seconds times rate).
local arrived = now * rate
local theoretical = arrived
local state = redis.call('GET', key)
if state then theoretical = math.max(arrived, (struct.unpack('<d', state))) end
local ahead = theoretical - arrived
if ahead > most then -- the clock was set back: owe no more than the burst
  theoretical, ahead = arrived + burst, burst
  keep(struct.pack('<d', theoretical), ahead / rate)
end

local total = ahead + cost
if total > most then return answer(false, burst - ahead, (total - burst) / rate, ahead / rate) end
if cost > 0 then keep(struct.pack('<d', theoretical + cost), total / rate) end
return answer(true, burst - total, 0, total / rate)
