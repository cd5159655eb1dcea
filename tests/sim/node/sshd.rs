//! The sshd of a node, whose certificate its agent keeps.

use super::*;
use crate::net::{Call, PATIENCE_MS};

impl World {
    /// Asks for a certificate of sshd's key. A question that is lost is asked again a minute later.
    pub fn certify_sshd(&mut self, i: usize, issuer: SpkiPin) -> bool {
        let hello = self.hello(i);
        let a = &mut self.agents[i];
        let (Some(sshd), Some(hello)) = (&mut a.sshd, hello) else {
            return false;
        };
        let (Some(spki), now) = (sshd.key, self.now) else {
            return false;
        };
        if now < a.ask_after || a.sent.get(&spki).is_some_and(|sent| now - sent < PATIENCE_MS) {
            return false;
        }
        sshd.asked = Some(issuer);
        a.sent.insert(spki, now);
        self.tell(|| format!("agent {i} asks {} for sshd", issuer.short()));
        self.call(i, Some(hello), Call::CertifySshd { issuer, spki });
        true
    }

    /// A question that is not answered is asked again.
    pub fn give_up_on_sshd(&mut self, i: usize) {
        let (now, a) = (self.now, &mut self.agents[i]);
        if let Some(sshd) = &mut a.sshd {
            let sent = sshd.key.and_then(|key| a.sent.get(&key));
            sshd.asked = sshd
                .asked
                .filter(|_| sent.is_some_and(|sent| now - sent < PATIENCE_MS));
        }
    }
}

impl Agent {
    /// A certificate of sshd's key came.
    pub fn take_for_sshd(&mut self, leaf: Leaf) -> bool {
        let Some(sshd) = self.sshd.as_mut().filter(|sshd| sshd.key == Some(leaf.spki)) else {
            return false;
        };
        sshd.asked = sshd.asked.filter(|asked| *asked != leaf.issuer);
        if sshd
            .received
            .as_ref()
            .is_none_or(|before| leaf.position > before.position)
        {
            sshd.received = Some(leaf);
        }
        true
    }
}
