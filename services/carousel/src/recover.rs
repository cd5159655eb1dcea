//! `carousel recover`: a new administrator identity, on the control-plane host, as an event.

use cli::{
    args::{Format, Global, RecoverArgs},
    failure::Exit,
    identity::{Identity, IdentityError},
};
use domain::{SpkiPin, id::InvalidId};
use pki::KeyPair;
use tokio_util::sync::CancellationToken;

use crate::{
    home::{Home, HomeError},
    host::{RecoverAnswer, RecoverRequest, ask, recover},
    plane::{Core, IfEmpty, PlaneError},
};

/// Why there is no new identity. The old one, if there is one, is unchanged.
#[derive(Debug, thiserror::Error)]
enum RecoverError {
    #[error(transparent)]
    Home(#[from] HomeError),
    #[error(transparent)]
    Plane(#[from] PlaneError),
    #[error("refused: {0}")]
    Refused(String),
    #[error("the running control plane did not answer on {socket}; look at its log, then try again")]
    NoAnswer {
        socket: String,
        #[source]
        source: std::io::Error,
    },
    #[error("there is no new identity: {0}")]
    Answer(String),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Id(#[from] InvalidId),
    #[error(transparent)]
    Genesis(#[from] signer::founding::GenesisFileError),
}

/// The command.
pub async fn run(global: &Global, args: &RecoverArgs) -> u8 {
    match try_run(global, args).await {
        Ok(path) => {
            match global.format {
                Format::Json | Format::Yaml => {
                    anstream::println!("{}", serde_json::json!({ "identity": path }))
                }
                _ => {
                    anstream::println!("Wrote a new administrator identity to {path}.");
                    anstream::println!("Next: carousel --identity {path} status");
                }
            }
            0
        }
        // As every other no of the control plane: the code first, and its own exit code.
        Err(error @ RecoverError::Refused(_)) => {
            anstream::eprintln!("{error}");
            Exit::Refused as u8
        }
        Err(error) => crate::failed(&error),
    }
}

async fn try_run(global: &Global, args: &RecoverArgs) -> Result<String, RecoverError> {
    let mut home = Home::open(&args.data_dir)?;
    home.description.choose_log(args.log.as_deref())?;
    let bundle_pin: SpkiPin = signer::load_genesis(&home.keys())?.bundle_key;
    let key = KeyPair::generate();
    let request = RecoverRequest {
        user: home.description.admin.clone(),
        csr: pki::csr::make_pem(&key),
        reason: global.reason.clone(),
    };
    // A running control plane holds the directory; without one this process is it for a moment.
    let answer = match home.hold() {
        Ok(held) => {
            let stop = CancellationToken::new();
            let core = Core::start(&mut home, args.log.as_deref(), IfEmpty::Refuse, stop.clone()).await?;
            let answer = recover(&core.fold, &core.executor, &request, String::new()).await;
            core.stop().await;
            drop(held);
            answer
        }
        Err(HomeError::InUse(_)) => {
            ask(&home.host_socket(), &request)
                .await
                .map_err(|source| RecoverError::NoAnswer {
                    socket: home.host_socket().display().to_string(),
                    source,
                })?
        }
        Err(error) => return Err(error.into()),
    };
    let (certificate, bundle, server) = match answer {
        RecoverAnswer::Issued {
            certificate,
            bundle,
            server,
        } => (certificate, *bundle, server),
        RecoverAnswer::Refused(why) => return Err(RecoverError::Refused(why)),
        RecoverAnswer::Failed(why) => return Err(RecoverError::Answer(why)),
    };
    let path = home.admin_identity();
    let der = crate::plane::der(&certificate).ok_or_else(|| RecoverError::Answer("no certificate".into()))?;
    // Under its lock: `serve` may be renewing the old one, and would write it over this one.
    cli::identity::replace(&path, |old| Identity {
        version: cli::identity::FORMAT,
        // The address of the last start, when no control plane runs now.
        server: match old {
            Some(old) if server.is_empty() => old.server,
            _ => server,
        },
        cluster: home.description.cluster.clone(),
        user: request.user,
        bundle_pin,
        certificate: pki::pem::encode_certificates([&der[..]]),
        key: key.to_pem(),
        bundle,
    })
    .await?;
    Ok(path.display().to_string())
}
