"""The same work as src/bin/floor.rs, done by Twisted: watches user1 to userN, prints a line per new message."""

import argparse
import sys

from twisted.internet import defer, endpoints, protocol, reactor, ssl, task
from twisted.mail import imap4

arguments = argparse.ArgumentParser()
arguments.add_argument("--users", type=int, required=True)
arguments.add_argument("--hosts", type=lambda text: text.split(","), required=True)
arguments.add_argument("--port", type=int, required=True)
arguments.add_argument("--ca")
arguments.add_argument("--connecting", type=int, default=50)
arguments.add_argument("--all", action="store_true")
args = arguments.parse_args()


class Watcher(imap4.IMAP4Client):
    """Twisted has no IDLE: it is made of what it has."""

    idling = False
    news = False
    next = 1

    def serverGreeting(self, capabilities):
        self.factory.greeted.callback(self)

    def dispatchCommand(self, tag, rest):
        # While a command runs, Twisted keeps what comes unasked until its end.
        if tag == b"*" and rest.endswith(b" EXISTS"):
            self.told(int(rest.split()[0]))
        return super().dispatchCommand(tag, rest)

    def told(self, exists):
        self.news = self.news or exists >= self.next
        if self.news and self.idling:
            self.idling = False
            self.sendLine(b"DONE")

    @defer.inlineCallbacks
    def watch(self):
        while True:
            if self.news:
                self.news = False
                yield self.tell()
            else:
                yield self.idle()

    def idle(self):
        return self.sendCommand(imap4.Command(b"IDLE", continuation=self.begun))

    def begun(self, _):
        self.idling = True
        self.told(0)

    @defer.inlineCallbacks
    def tell(self):
        messages = imap4.MessageSet(self.next, None)
        told = yield self.fetchSpecific(
            messages, uid=1, headerType="HEADER.FIELDS", headerArgs=["MESSAGE-ID"], peek=True
        )
        for number, parts in sorted(told.items(), key=lambda message: int(message[0])):
            if int(number) >= self.next:
                sys.stdout.write("new " + parts[-1][-1].partition(":")[2].strip() + "\n")
                self.next = int(number) + 1
        sys.stdout.flush()


@defer.inlineCallbacks
def watch(user):
    host = args.hosts[(user - 1) % len(args.hosts)]
    endpoint = endpoints.HostnameEndpoint(reactor, host, args.port)
    if authority:
        endpoint = endpoints.wrapClientTLS(ssl.optionsForClientTLS(host, authority), endpoint)
    factory = protocol.Factory.forProtocol(Watcher)
    factory.greeted = defer.Deferred()
    yield endpoint.connect(factory)
    imap = yield factory.greeted
    yield imap.login(f"user{user}".encode(), b"pw")
    opened = yield imap.examine("INBOX")
    imap.next = 1 if args.all else opened["EXISTS"] + 1
    imap.news = args.all and opened["EXISTS"] > 0
    imap.watch().addErrback(failed)


def failed(failure):
    sys.stderr.write(failure.getErrorMessage() + "\n")
    if reactor.running:
        reactor.stop()


authority = ssl.Certificate.loadPEM(open(args.ca).read()) if args.ca else None
users = iter(range(1, args.users + 1))
workers = task.Cooperator(terminationPredicateFactory=lambda: lambda: True)
for _ in range(args.connecting):
    workers.coiterate(map(watch, users)).addErrback(failed)
reactor.run()
