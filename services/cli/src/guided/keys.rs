//! What is typed: the terminal's bytes as keys, and the terminal's mode while they are read.

use std::{
    io::{self, Stdin},
    str,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::termios::{
    InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// A key, as far as a prompt cares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Key {
    /// A character.
    Char(char),
    /// Enter.
    Enter,
    /// One character back.
    Backspace,
    /// The whole line back: Ctrl-U.
    Clear,
    /// The arrow up.
    Up,
    /// The arrow down.
    Down,
    /// Escape, alone.
    Escape,
    /// Ctrl-C, or a signal that ends programs.
    Interrupt,
    /// Ctrl-D, or the terminal is gone.
    End,
}

/// Reads bytes into keys; what is not finished waits for the next bytes.
#[derive(Default, Debug)]
pub(super) struct Decoder {
    rest: Vec<u8>,
}

impl Decoder {
    /// The keys that these bytes finish.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Vec<Key> {
        self.rest.extend_from_slice(bytes);
        let mut keys = Vec::new();
        let mut at = 0;
        while at < self.rest.len() {
            let Some((key, taken)) = next(&self.rest[at..]) else {
                break;
            };
            keys.extend(key);
            at += taken;
        }
        self.rest.drain(..at);
        keys
    }

    /// Nothing came for a while: what begins like a sequence is none, it was the escape key.
    pub(super) fn pause(&mut self) -> Option<Key> {
        let began = std::mem::take(&mut self.rest);
        (began.first() == Some(&ESC)).then_some(Key::Escape)
    }
}

const ESC: u8 = 0x1b;

/// The first key and how many bytes it takes; `None` where more must come. A key that no prompt knows is passed over.
fn next(bytes: &[u8]) -> Option<(Option<Key>, usize)> {
    let key = match *bytes.first()? {
        b'\r' | b'\n' => Key::Enter,
        0x03 => Key::Interrupt,
        0x04 => Key::End,
        0x08 | 0x7f => Key::Backspace,
        0x15 => Key::Clear,
        ESC => return sequence(bytes),
        byte if byte < 0x20 => return Some((None, 1)),
        byte => return character(bytes, byte),
    };
    Some((Some(key), 1))
}

/// `ESC [ A` and its like; `ESC O A` is what a terminal in application mode sends.
fn sequence(bytes: &[u8]) -> Option<(Option<Key>, usize)> {
    match *bytes.get(1)? {
        b'[' | b'O' => {}
        // Alt and a key: not what this prompt is asked with.
        ESC => return Some((Some(Key::Escape), 1)),
        _ => return Some((None, 2)),
    }
    let end = bytes[2..].iter().position(|byte| (0x40..=0x7e).contains(byte))? + 2;
    let key = match bytes[end] {
        b'A' => Some(Key::Up),
        b'B' => Some(Key::Down),
        _ => None,
    };
    Some((key, end + 1))
}

fn character(bytes: &[u8], first: u8) -> Option<(Option<Key>, usize)> {
    let len = match first {
        0x00..=0x7f => 1,
        0xc0..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf7 => 4,
        // No character begins so.
        _ => return Some((None, 1)),
    };
    let whole = bytes.get(..len)?;
    match str::from_utf8(whole).ok().and_then(|text| text.chars().next()) {
        Some(c) if !c.is_control() => Some((Some(Key::Char(c)), len)),
        Some(_) => Some((None, len)),
        None => Some((None, 1)),
    }
}

/// The terminal while keys are read one by one; dropped, it is as it was before.
pub(super) struct Keys {
    terminal: Stdin,
    before: Termios,
    stop: Arc<AtomicBool>,
    keys: UnboundedReceiver<Key>,
}

impl Keys {
    /// Takes the terminal behind stdin.
    ///
    /// # Errors
    /// When it cannot be asked for its mode or cannot change it.
    pub(super) fn open() -> io::Result<Self> {
        let terminal = io::stdin();
        let before = tcgetattr(&terminal)?;
        tcsetattr(&terminal, OptionalActions::Now, &one_by_one(&before))?;
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, keys) = unbounded_channel();
        let opened = Self {
            terminal,
            before,
            stop: stop.clone(),
            keys,
        };
        // A thread of its own: a read of a terminal cannot be given up, and a pool would wait for it at the end.
        std::thread::Builder::new()
            .name("keys".into())
            .spawn(move || read(&sender, &stop))?;
        Ok(opened)
    }

    /// The next key. Cancel-safe.
    pub(super) async fn next(&mut self) -> Key {
        self.keys.recv().await.unwrap_or(Key::End)
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}

/// No echo, no lines, no signals from keys, and a read that returns after a tenth of a second. What is written keeps
/// its line feeds as they are, so that whatever else writes meanwhile (a warning, a panic) can be read.
fn one_by_one(before: &Termios) -> Termios {
    let mut mode = before.clone();
    mode.local_modes
        .remove(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG | LocalModes::IEXTEN);
    mode.input_modes.remove(InputModes::ICRNL | InputModes::IXON);
    mode.special_codes[SpecialCodeIndex::VMIN] = 0;
    mode.special_codes[SpecialCodeIndex::VTIME] = 1;
    mode
}

fn read(sender: &UnboundedSender<Key>, stop: &AtomicBool) {
    let terminal = io::stdin();
    let mut decoder = Decoder::default();
    let mut buffer = [0_u8; 256];
    while !stop.load(Ordering::Relaxed) {
        let keys = match rustix::io::read(&terminal, &mut buffer) {
            // Nothing came, or a terminal that is gone: only the latter has no mode any more.
            Ok(0) if tcgetattr(&terminal).is_ok() => decoder.pause().into_iter().collect(),
            Ok(0) => break,
            Ok(n) => decoder.feed(&buffer[..n]),
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => break,
        };
        for key in keys {
            if sender.send(key).is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(bytes: &[u8]) -> Vec<Key> {
        Decoder::default().feed(bytes)
    }

    #[test]
    fn bytes_are_the_keys_that_a_terminal_means_by_them() {
        assert_eq!(keys(b"a\r"), [Key::Char('a'), Key::Enter]);
        assert_eq!(
            keys(b"\x03\x04\x7f\x15"),
            [Key::Interrupt, Key::End, Key::Backspace, Key::Clear]
        );
        assert_eq!(keys(b"\x1b[A\x1b[B\x1bOA"), [Key::Up, Key::Down, Key::Up]);
        assert_eq!(keys("ü✓".as_bytes()), [Key::Char('ü'), Key::Char('✓')]);
    }

    #[test]
    fn keys_that_no_prompt_knows_leave_nothing_behind() {
        // F5, Shift-Right, Alt-x, Tab, a byte that begins no character, one that ends none.
        assert_eq!(
            keys(b"\x1b[15~\x1b[1;2C\x1bx\t\xffa\xc3(y"),
            [Key::Char('a'), Key::Char('('), Key::Char('y')]
        );
    }

    #[test]
    fn a_sequence_may_come_in_pieces_and_an_escape_may_stay_alone() {
        let mut decoder = Decoder::default();
        assert_eq!(decoder.feed(b"\x1b"), []);
        assert_eq!(decoder.feed(b"["), []);
        assert_eq!(decoder.feed(b"B"), [Key::Down]);
        assert_eq!(decoder.pause(), None);
        assert_eq!(decoder.feed(b"\x1b"), []);
        assert_eq!(decoder.pause(), Some(Key::Escape));
        assert_eq!(decoder.feed(b"q"), [Key::Char('q')]);
        assert_eq!(decoder.feed(b"\xe2\x9c"), []);
        assert_eq!(decoder.feed(b"\x93"), [Key::Char('✓')]);
    }
}
