//! Which of the services a process runs.

use std::{collections::BTreeSet, fmt, str::FromStr};

/// One of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Service {
    /// The one door.
    Gateway,
    /// Decides.
    Orchestrator,
    /// Answers what people ask.
    Projector,
    /// Signs.
    Signer,
}

impl Service {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Gateway, Self::Orchestrator, Self::Projector, Self::Signer];

    /// As `--services` names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Orchestrator => "orchestrator",
            Self::Projector => "projector",
            Self::Signer => "signer",
        }
    }
}

/// The services of a process, at least one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Services(BTreeSet<Service>);

impl Services {
    /// All four, as on one machine.
    pub fn all() -> Self {
        Self(Service::ALL.into())
    }

    /// Is it among them?
    pub fn has(&self, service: Service) -> bool {
        self.0.contains(&service)
    }

    /// Is none missing?
    pub fn are_all(&self) -> bool {
        self.0.len() == Service::ALL.len()
    }
}

impl fmt::Display for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.iter().map(|service| service.name()).collect();
        f.write_str(&names.join(","))
    }
}

impl FromStr for Services {
    type Err = String;

    /// `all`, or names with commas between them.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::all());
        }
        let one = |name: &str| {
            let found = Service::ALL
                .into_iter()
                .find(|service| service.name() == name.trim());
            found.ok_or_else(|| {
                let name = domain::plain(name.trim());
                format!(
                    "--services is `all`, or a list of gateway, orchestrator, projector, signer: {name:?} is none of them"
                )
            })
        };
        text.split(',').map(one).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_services_once_and_what_is_none_is_said() {
        let two: Services = "signer, projector,signer".parse().unwrap();
        assert_eq!(two.to_string(), "projector,signer");
        assert!(two.has(Service::Signer) && !two.has(Service::Gateway) && !two.are_all());
        assert!("all".parse::<Services>().unwrap().are_all());
        assert!(
            "gateway,orchestrator,projector,signer"
                .parse::<Services>()
                .unwrap()
                .are_all()
        );
        for text in ["", "signers", "all,signer", "signer,"] {
            assert!(
                text.parse::<Services>().unwrap_err().contains("is none of them"),
                "{text}"
            );
        }
    }
}
