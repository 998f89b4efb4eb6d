//! An authorization server: it gives tokens that Dovecot takes (JWT, HS256), rotates refresh tokens, and misbehaves as it
//! is told.

use std::collections::HashMap;
use std::io::{BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::BASE64URL_NOPAD;
use ring::hmac;
use serde_json::{Value, json};

use super::receiver::request;

/// What a request gets instead of a token.
#[derive(Clone, Debug)]
pub enum Fault {
    /// A status, further header lines, and a JSON body.
    Status(u16, &'static str, &'static str),
    /// Says nothing until the other side goes.
    Hang,
    /// A good answer with a megabyte of blanks.
    Huge,
}

pub const INVALID_GRANT: Fault =
    Fault::Status(400, "", r#"{"error":"invalid_grant","error_description":"revoked"}"#);

struct Desk {
    key: Vec<u8>,
    /// How long tokens live, and what is said of that.
    lasts: i64,
    said: i64,
    /// For all requests, while it is set.
    always: Option<Fault>,
    /// The only refresh token that is good; each use makes another.
    refresh_token: Option<String>,
    rotations: usize,
    /// By families: the number of the refresh token that is good; one that is shown twice ends its family.
    families: HashMap<String, Option<usize>>,
    /// What was granted is told later.
    held: bool,
    forms: Vec<HashMap<String, String>>,
    given: usize,
    busy: usize,
    busiest: usize,
    /// Polls of a device until a person has permitted.
    pending: usize,
}

#[derive(Clone)]
pub struct TokenEndpoint {
    pub port: u16,
    desk: Arc<Mutex<Desk>>,
}

/// A token for `user` that ends at so many seconds from now.
pub fn token(key: &[u8], user: &str, lasts: i64) -> String {
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let header = part(&json!({"alg": "HS256", "typ": "JWT"}));
    let claims = json!({
        "sub": user, "iat": now - 10, "nbf": now - 10, "exp": now + lasts, "iss": "test", "scope": "mail",
    });
    let message = format!("{header}.{}", part(&claims));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message.as_bytes());
    format!("{message}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))
}

impl TokenEndpoint {
    /// Tokens are signed by `key`, for the user that the client's id or the assertion's subject names.
    pub fn start(key: &[u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let desk = Desk {
            key: key.to_vec(),
            lasts: 3600,
            said: 3600,
            always: None,
            refresh_token: None,
            rotations: 0,
            families: HashMap::new(),
            held: false,
            forms: Vec::new(),
            given: 0,
            busy: 0,
            busiest: 0,
            pending: 0,
        };
        let endpoint = Self { port, desk: Arc::new(Mutex::new(desk)) };
        let server = endpoint.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = server.clone();
                std::thread::spawn(move || server.serve(&stream));
            }
        });
        endpoint
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/token", self.port)
    }

    pub fn device_url(&self) -> String {
        format!("http://127.0.0.1:{}/device", self.port)
    }

    fn desk<T>(&self, of: impl FnOnce(&mut Desk) -> T) -> T {
        of(&mut self.desk.lock().unwrap())
    }

    /// Tokens live for `lasts` seconds, and `said` is said.
    pub fn tokens_last(&self, lasts: i64, said: i64) {
        self.desk(|desk| (desk.lasts, desk.said) = (lasts, said));
    }

    pub fn always(&self, fault: Option<Fault>) {
        self.desk(|desk| desk.always = fault);
    }

    /// Refresh tokens are good once; this is the first.
    pub fn rotate_from(&self, token: &str) {
        self.desk(|desk| desk.refresh_token = Some(token.to_owned()));
    }

    /// As [`Self::rotate_from`], for many at the same time: the first refresh token of each.
    #[cfg(feature = "postgres")]
    pub fn rotate_each(&self, family: &str) -> String {
        self.desk(|desk| desk.families.insert(family.to_owned(), Some(0)));
        format!("canary-{family}-0")
    }

    /// Holds answers back, and what they say holds already; or lets them go.
    #[cfg(feature = "postgres")]
    pub fn hold(&self, held: bool) {
        self.desk(|desk| desk.held = held);
    }

    /// The refresh tokens that were shown, in this order.
    #[cfg(feature = "postgres")]
    pub fn shown(&self) -> Vec<String> {
        self.forms().iter().filter_map(|form| form.get("refresh_token").cloned()).collect()
    }

    pub fn refresh_token(&self) -> String {
        self.desk(|desk| desk.refresh_token.clone().unwrap())
    }

    pub fn pending(&self, polls: usize) {
        self.desk(|desk| desk.pending = polls);
    }

    /// The forms that were posted.
    pub fn forms(&self) -> Vec<HashMap<String, String>> {
        self.desk(|desk| desk.forms.clone())
    }

    /// Tokens given.
    pub fn given(&self) -> usize {
        self.desk(|desk| desk.given)
    }

    /// The most requests at the same time.
    pub fn busiest(&self) -> usize {
        self.desk(|desk| desk.busiest)
    }

    fn serve(&self, mut stream: &TcpStream) {
        let mut reader = BufReader::new(stream);
        while let Some((head, body)) = request(&mut reader) {
            let form = form(&body);
            let fault = self.desk(|desk| {
                desk.busy += 1;
                desk.busiest = desk.busiest.max(desk.busy);
                desk.forms.push(form.clone());
                desk.always.clone()
            });
            let answer = match fault {
                Some(Fault::Hang) => {
                    let _ = stream.read(&mut [0]);
                    None
                }
                Some(Fault::Status(status, more, body)) => Some((status, more.to_owned(), body.to_owned())),
                Some(Fault::Huge) => {
                    let body = self.desk(|desk| desk.token(&form));
                    Some((200, String::new(), format!("{}{body}", " ".repeat(1 << 20))))
                }
                None if head[0].contains("/device") => Some((200, String::new(), self.code())),
                None => Some(self.desk(|desk| desk.answer(&form))),
            };
            while self.desk(|desk| desk.held) {
                std::thread::sleep(Duration::from_millis(20));
            }
            self.desk(|desk| desk.busy -= 1);
            let Some((status, more, body)) = answer else { return };
            let text = format!(
                "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{more}Content-Length: {}\r\n\r\n{body}",
                body.len()
            );
            if stream.write_all(text.as_bytes()).is_err() {
                return;
            }
        }
    }

    fn code(&self) -> String {
        json!({
            "device_code": "canary-device-code", "user_code": "WDJB-MJHT", "expires_in": 600, "interval": 1,
            "verification_uri": format!("http://127.0.0.1:{}/activate", self.port),
        })
        .to_string()
    }
}

impl Desk {
    fn answer(&mut self, form: &HashMap<String, String>) -> (u16, String, String) {
        let refused = |error: &str| (400, String::new(), json!({"error": error}).to_string());
        let shown = form.get("refresh_token");
        if self.refresh_token.is_some() && shown.is_some() && shown != self.refresh_token.as_ref() {
            return refused("invalid_grant");
        }
        let next = match shown.and_then(|shown| self.rotated(shown)) {
            Some(None) => return refused("invalid_grant"),
            next => next.flatten(),
        };
        if form["grant_type"].ends_with("device_code") && self.pending > 0 {
            self.pending -= 1;
            return refused("authorization_pending");
        }
        let mut answer: Value = serde_json::from_str(&self.token(form)).unwrap();
        if let Some(next) = next {
            answer["refresh_token"] = json!(next);
        }
        (200, String::new(), answer.to_string())
    }

    /// What comes in place of a refresh token of a family; nothing, where that was not the good one.
    fn rotated(&mut self, shown: &str) -> Option<Option<String>> {
        let (family, number) = shown.strip_prefix("canary-")?.rsplit_once('-')?;
        let good = self.families.get_mut(family)?;
        *good = good.filter(|good| number == good.to_string()).map(|good| good + 1);
        Some(good.map(|next| format!("canary-{family}-{next}")))
    }

    fn token(&mut self, form: &HashMap<String, String>) -> String {
        self.given += 1;
        let subject = form.get("assertion").map(|assertion| {
            let claims = BASE64URL_NOPAD.decode(assertion.split('.').nth(1).unwrap().as_bytes()).unwrap();
            let claims: Value = serde_json::from_slice(&claims).unwrap();
            claims["sub"].as_str().unwrap().to_owned()
        });
        let user = subject.or_else(|| form.get("client_id").cloned()).unwrap();
        let token = token(&self.key, &user, self.lasts);
        let mut answer = json!({
            "access_token": token, "token_type": "Bearer", "expires_in": self.said, "scope": "mail",
        });
        let by_device = form["grant_type"].ends_with("device_code");
        if self.refresh_token.is_some() && (form.contains_key("refresh_token") || by_device) {
            self.rotations += 1;
            let next = format!("canary-rotated-{}", self.rotations);
            answer["refresh_token"] = json!(next);
            self.refresh_token = Some(next);
        }
        answer.to_string()
    }
}

fn form(body: &[u8]) -> HashMap<String, String> {
    oauth2::url::form_urlencoded::parse(body).into_owned().collect()
}
