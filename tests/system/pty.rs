//! A program at a terminal of its own: keys go in, and what a person would see is read from a screen.

use std::{
    fs::File,
    io::{Read, Write},
    num::NonZero,
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

use carousel_tests::{PATIENCE, deadline};
use rustix::{
    fs::{Mode, OFlags},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, Termios, Winsize, tcgetattr, tcsetwinsize},
};

/// The size that a terminal has unless told otherwise: columns and lines.
pub(crate) const SIZE: (u16, u16) = (80, 24);
/// A screen on which a whole session has room.
const TALL: u16 = 2_000;

/// What came from the program.
struct Said {
    screen: vt100::Parser,
    bytes: Vec<u8>,
    columns: u16,
}

/// A program and its terminal. It is killed when this is dropped.
pub(crate) struct Pty {
    master: File,
    /// Kept open, so that what the program leaves behind can be read after its end.
    slave: Option<OwnedFd>,
    reader: Option<JoinHandle<()>>,
    child: Child,
    said: Arc<Mutex<Said>>,
    before: Termios,
}

impl Pty {
    /// Starts it on a terminal of 80 columns and 24 lines.
    pub(crate) fn start(command: &mut Command) -> Self {
        Self::start_sized(command, SIZE)
    }

    /// The same on a terminal of another size; 0 where it does not say one.
    pub(crate) fn start_sized(command: &mut Command, size: (u16, u16)) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pty");
        grantpt(&master).expect("our own pty");
        unlockpt(&master).expect("our own pty");
        let name = ptsname(&master, Vec::new()).expect("a pty has a name");
        let slave =
            rustix::fs::open(&*name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).expect("its other end");
        let master = File::from(master);
        let shown = match size {
            (0, _) | (_, 0) => SIZE,
            size => size,
        };
        let said = Arc::new(Mutex::new(Said {
            screen: screen(shown.1, shown.0),
            bytes: Vec::new(),
            columns: shown.0,
        }));
        set_size(&master, size);
        let before = tcgetattr(&slave).expect("a terminal has a mode");
        let stream = || Stdio::from(slave.try_clone().expect("one more"));
        let child = command.stdin(stream()).stdout(stream()).stderr(stream()).spawn();
        // The command holds its end of the terminal as long as it is not told to start with another.
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let reader = master.try_clone().expect("one more");
        let heard = Arc::clone(&said);
        let reader = thread::spawn(move || read(reader, &heard));
        Self {
            master,
            slave: Some(slave),
            reader: Some(reader),
            child: child.expect("the program starts"),
            said,
            before,
        }
    }

    /// Presses keys, one after the other.
    pub(crate) fn types(&mut self, keys: &str) {
        self.master
            .write_all(keys.as_bytes())
            .expect("the terminal is there");
    }

    /// Waits until the line with the cursor has this: until it is asked.
    pub(crate) fn asks(&self, question: &str) {
        self.until(&format!("asks {question:?}"), |said| {
            let screen = said.screen.screen();
            let (row, _) = screen.cursor_position();
            let line = screen
                .rows(0, said.columns)
                .nth(usize::from(row))
                .unwrap_or_default();
            line.contains(question)
        });
    }

    /// Waits until the screen has this, somewhere.
    pub(crate) fn shows(&self, text: &str) {
        self.until(&format!("shows {text:?}"), |said| {
            said.screen.screen().contents().contains(text)
        });
    }

    fn until(&self, what: &str, holds: impl Fn(&Said) -> bool) {
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            deadline(PATIENCE, what, || holds(&self.lock()).then_some(()));
        }));
        assert!(
            found.is_ok(),
            "the terminal never {what}; it shows\n{}",
            self.all()
        );
    }

    /// The screen as it is now.
    pub(crate) fn screen(&self) -> String {
        self.lock().screen.screen().contents()
    }

    /// Everything since the start, as a screen would show it that is high enough.
    pub(crate) fn all(&self) -> String {
        let said = self.lock();
        let mut tall = screen(TALL, said.columns);
        tall.process(&said.bytes);
        tall.screen().contents()
    }

    /// What came, escape sequences and all.
    pub(crate) fn raw(&self) -> String {
        String::from_utf8_lossy(&self.lock().bytes).into_owned()
    }

    /// Gives the terminal another size.
    pub(crate) fn resize(&self, (columns, lines): (u16, u16)) {
        let mut said = self.lock();
        said.screen.screen_mut().set_size(some(lines), some(columns));
        said.columns = columns;
        set_size(&self.master, (columns, lines));
    }

    /// Does the terminal give each key to the program, unseen?
    pub(crate) fn is_raw(&self) -> bool {
        let slave = self.slave.as_ref().expect("taken only at the end");
        let modes = tcgetattr(slave).expect("a terminal has a mode").local_modes;
        !modes.intersects(LocalModes::ICANON | LocalModes::ECHO)
    }

    /// Waits for its end with this exit code; the terminal must be as it was. Gives everything that was shown.
    pub(crate) fn ends(mut self, code: i32) -> String {
        let status = deadline(PATIENCE, "the program ends", || {
            self.child.try_wait().expect("it is our child")
        });
        let slave = self.slave.take().expect("taken only here");
        let after = tcgetattr(&slave).expect("a terminal has a mode");
        // With nobody at the other end, whatever was written is read, and then the end.
        drop(slave);
        let reader = self.reader.take().expect("taken only here");
        reader.join().expect("it only reads");
        let all = self.all();
        assert_eq!(status.code(), Some(code), "{all}");
        assert_eq!(after.local_modes, self.before.local_modes, "{all}");
        assert_eq!(after.input_modes, self.before.input_modes, "{all}");
        assert_eq!(after.output_modes, self.before.output_modes, "{all}");
        all
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn screen(lines: u16, columns: u16) -> vt100::Parser {
    vt100::Parser::new(some(lines), some(columns), 0)
}

fn some(n: u16) -> NonZero<u16> {
    NonZero::new(n).expect("a screen has lines and columns")
}

fn set_size(master: &File, (columns, lines): (u16, u16)) {
    let size = Winsize {
        ws_row: lines,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(master, size).expect("a terminal can have any size");
}

fn read(mut master: File, said: &Mutex<Said>) {
    let mut buffer = [0_u8; 4_096];
    // It ends with an error when nobody holds the other end any more.
    while let Ok(n @ 1..) = master.read(&mut buffer) {
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        said.screen.process(&buffer[..n]);
        said.bytes.extend_from_slice(&buffer[..n]);
    }
}
