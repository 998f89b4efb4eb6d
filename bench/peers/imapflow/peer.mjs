// The same work as src/bin/floor.rs, done by ImapFlow: watches user1 to userN, prints a line per new message.
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { ImapFlow } from 'imapflow';

const { values } = parseArgs({
    options: {
        users: { type: 'string' },
        hosts: { type: 'string' },
        port: { type: 'string' },
        ca: { type: 'string' },
        connecting: { type: 'string', default: '50' },
        all: { type: 'boolean', default: false },
    },
});
const hosts = values.hosts.split(',');
const tls = values.ca ? { ca: readFileSync(values.ca) } : undefined;
const waiting = Array.from({ length: Number(values.users) }, (_, n) => n + 1);

function client(user) {
    return new ImapFlow({
        host: hosts[(user - 1) % hosts.length],
        port: Number(values.port),
        secure: Boolean(tls),
        doSTARTTLS: false,
        tls,
        auth: { user: `user${user}`, pass: 'pw' },
        logger: false,
        maxIdleTime: 28 * 60 * 1000,
    });
}

async function tell(imap, from) {
    const query = { uid: true, headers: ['message-id'] };
    let next = from;
    for await (const message of imap.fetch(`${from}:*`, query, { uid: true })) {
        if (message.uid < from) continue;
        const id = /^message-id:\s*(\S+)/im.exec(message.headers.toString());
        process.stdout.write(`new ${id?.[1]}\n`);
        next = Math.max(next, message.uid + 1);
    }
    return next;
}

async function watch(user) {
    const imap = client(user);
    imap.on('error', error => console.error(`user${user}: ${error.message}`));
    await imap.connect();
    await imap.mailboxOpen('INBOX', { readOnly: true });
    let next = values.all ? 1 : imap.mailbox.uidNext;
    let telling = Promise.resolve();
    const news = () => {
        telling = telling.then(async () => {
            if (imap.mailbox.exists >= next) next = await tell(imap, next);
            imap.idle().catch(() => {});
        });
    };
    imap.on('exists', news);
    news();
}

async function work() {
    while (waiting.length) await watch(waiting.shift());
}

for (let n = 0; n < Number(values.connecting); n++) {
    work().catch(error => {
        console.error(error.message);
        process.exit(1);
    });
}
