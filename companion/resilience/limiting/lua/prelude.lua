-- What every script begins with: the question, the time, and how an answer is given.
-- KEYS[1] is the key; ARGV: cost, rate (units a second), burst, window (seconds), most (units).
local key = KEYS[1]
local cost, rate, burst = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local window, most = tonumber(ARGV[4]), tonumber(ARGV[5])

-- The server's own clock, so that its clients need not agree on the time. Counted from the
-- beginning of 2026, a double tells it to some nanoseconds; from 1970, to a quarter of a microsecond.
local time = redis.call('TIME')
local now = (time[1] - 1767225600) + time[2] / 1000000

-- A number that goes back through Redis as such loses its fraction.
local function answer(allowed, remaining, retry_after, reset)
  return struct.pack('<bddd', allowed and 1 or 0, math.max(remaining, 0), retry_after, reset)
end

-- A state that has become whole again need not be kept.
local function keep(state, reset)
  redis.call('SET', key, state, 'PX', math.max(1, math.ceil(reset * 1000)))
end
