"""The head of an answer goes out with what follows it, in order, and never later than the turn."""

import asyncio

from companion.serving.wire import HeadWithBody

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


class Transport:
    def __init__(self):
        self.calls = []

    def write(self, data):
        self.calls.append(data)

    def close(self):
        self.calls.append("closed")

    def is_closing(self):
        return "closed" in self.calls


def sent(*steps):
    """What reaches the transport after `steps`, each called with the wrapped one."""

    async def main():
        transport = Transport()
        wrapped = HeadWithBody(transport, asyncio.get_running_loop())
        for step in steps:
            step(wrapped)
        before = list(transport.calls)
        await asyncio.sleep(0)
        return before, transport.calls

    return asyncio.run(main())


def write(data):
    return lambda transport: transport.write(data)


def test_head_and_body_are_one_write():
    assert sent(write(HEAD), write(b"body"))[0] == [HEAD + b"body"]


def test_a_head_alone_goes_out_at_the_end_of_the_turn():
    assert sent(write(HEAD)) == ([], [HEAD])


def test_what_follows_is_not_kept_back():
    assert sent(write(HEAD), write(b"one"), write(b"two"))[0] == [HEAD + b"one", b"two"]


def test_two_answers_keep_their_order():
    other = b"HTTP/1.1 404 Not Found\r\n\r\n"

    assert sent(write(HEAD), write(other), write(b"x"))[1] == [HEAD + other, b"x"]


def test_closing_sends_what_was_kept_back_first():
    assert sent(write(HEAD), lambda transport: transport.close())[1] == [HEAD, "closed"]


def test_everything_else_is_the_transports_own():
    said = []

    sent(lambda transport: transport.close(), lambda transport: said.append(transport.is_closing()))

    assert said == [True]
