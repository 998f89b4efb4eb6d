//! A message is made from its user and UID whenever it is asked for: mailboxes hold none.

const SIZE: u32 = 48_213;

const STRUCTURE: &str = "((\"TEXT\" \"PLAIN\" (\"CHARSET\" \"utf-8\") NIL NIL \"QUOTED-PRINTABLE\" 1830 41 NIL NIL NIL NIL)\
    (\"APPLICATION\" \"PDF\" (\"NAME\" \"report.pdf\") NIL NIL \"BASE64\" 45210 NIL \
    (\"ATTACHMENT\" (\"FILENAME\" \"report.pdf\")) NIL NIL) \"MIXED\" (\"BOUNDARY\" \"=-b7Q1\") NIL NIL NIL)";

/// One message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mail {
    pub(super) user: u32,
    pub(super) uid: u32,
}

impl Mail {
    fn time(self) -> String {
        let (minute, second) = (self.uid / 60 % 60, self.uid % 60);
        format!("{:02}:{minute:02}:{second:02} +0000", self.uid / 3600 % 24)
    }

    pub(super) fn internal_date(self) -> String {
        format!("INTERNALDATE \"24-Nov-2025 {}\"", self.time())
    }

    pub(super) fn size(self) -> String {
        format!("RFC822.SIZE {}", SIZE + self.uid % 1000)
    }

    pub(super) fn structure(self) -> String {
        format!("BODYSTRUCTURE {STRUCTURE}")
    }

    pub(super) fn envelope(self) -> String {
        let Self { user, uid } = self;
        format!(
            "ENVELOPE (\"Mon, 24 Nov 2025 {time}\" \"Report {uid} of the quarter\" {alice} {alice} {alice} \
             ((NIL NIL \"user{user}\" \"bench.example\")) NIL NIL NIL \"<{uid}.{user}@bench.example>\")",
            time = self.time(),
            alice = "((\"Alice Example\" NIL \"alice\" \"example.org\"))",
        )
    }

    /// The header lines whose names are `wanted`, with the empty line behind them.
    pub(super) fn header(self, wanted: impl Fn(&str) -> bool) -> String {
        let mut header = String::with_capacity(1024);
        for (name, value) in self.header_fields() {
            if wanted(name) {
                header.extend([name, ": ", value.as_str(), "\r\n"]);
            }
        }
        header + "\r\n"
    }

    /// About 700 bytes of what mail is made of.
    fn header_fields(self) -> [(&'static str, String); 12] {
        let Self { user, uid } = self;
        let before = uid.saturating_sub(1);
        [
            (
                "Received",
                format!(
                    "from mx.example.org (mx.example.org [192.0.2.7])\r\n\tby bench.example with ESMTPS id {uid:08X}; Mon, 24 Nov 2025 {}",
                    self.time()
                ),
            ),
            ("From", "\"Alice Example\" <alice@example.org>".into()),
            ("To", format!("\"User {user}\" <user{user}@bench.example>,\r\n\tteam@bench.example")),
            ("Cc", "=?utf-8?q?J=C3=BCrgen?= <juergen@example.org>".into()),
            ("Subject", format!("=?utf-8?q?Bericht_{uid}_=E2=80=93_=C3=9Cbersicht?= of the quarter")),
            ("Date", format!("Mon, 24 Nov 2025 {}", self.time())),
            ("Message-ID", format!("<{uid}.{user}@bench.example>")),
            ("In-Reply-To", format!("<{before}.{user}@bench.example>")),
            ("References", format!("<0.{user}@bench.example>\r\n\t<{before}.{user}@bench.example>")),
            ("List-Id", "Reports <reports.example.org>".into()),
            ("MIME-Version", "1.0".into()),
            ("Content-Type", "multipart/mixed; boundary=\"=-b7Q1\"".into()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_of_real_size_and_can_be_reduced_to_what_is_asked_for() {
        let mail = Mail { user: 7, uid: 4711 };
        assert!((600..800).contains(&mail.header(|_| true).len()));
        let only_id = mail.header(|name| name == "Message-ID");
        assert_eq!(only_id, "Message-ID: <4711.7@bench.example>\r\n\r\n");
    }
}
