-- State: the number of the window, and the units used in it.
local number = math.floor(now / window)
local left = (number + 1) * window - now
local used = 0
local state = redis.call('GET', key)
if state then
  local last, units = struct.unpack('<dd', state)
  if last == number then used = units end
end

local total = used + cost
if total > most then return answer(false, burst - used, left, left) end
if cost > 0 then keep(struct.pack('<dd', number, total), left) end
return answer(true, burst - total, 0, total > 0 and left or 0)
