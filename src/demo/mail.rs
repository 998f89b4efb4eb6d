//! Sample mail for the demo.

use rand::Rng;
use rand::seq::IndexedRandom;

const SENDERS: &[&str] = &[
    "Alice =?UTF-8?Q?=C3=84rmel?= <alice@example.org>",
    "Billing <billing@shop.example>",
    "CI <builds@ci.example>",
    "Dana <dana@example.net>",
    "=?UTF-8?B?5pel5pys6Kqe?= <tokyo@example.jp>",
    "Status <noreply@status.example>",
];

const SUBJECTS: &[&str] = &[
    "Lunch tomorrow?",
    "Invoice {n}",
    "Build {n} failed: tests/it",
    "=?UTF-8?Q?Quartalsbericht_=E2=80=93_=C3=9Cbersicht?=",
    "Re: the door on the third floor",
    "[status] latency is back to normal",
    "=?UTF-8?B?44GT44KT44Gr44Gh44Gv?=",
    "Ticket #{n}: printer on fire",
];

/// A message to `to`, drawn by `random`.
pub fn sample(to: &str, random: &mut impl Rng) -> String {
    let number: u32 = random.random_range(1000..9999);
    let sender = SENDERS.choose(random).copied().unwrap_or_default();
    let subject = SUBJECTS.choose(random).copied().unwrap_or_default().replace("{n}", &number.to_string());
    format!(
        "From: {sender}\r\nTo: {to}@demo.example\r\nSubject: {subject}\r\nMessage-ID: <{number}.{to}@demo.example>\r\n\
         Date: Mon, 23 Nov 2026 10:00:00 +0000\r\n\r\nHello {to}.\r\n"
    )
}
