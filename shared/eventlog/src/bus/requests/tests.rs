use super::*;
use crate::testing::NatsServer;

const SOON: Duration = Duration::from_secs(20);

/// A service that answers with as many bytes as it is asked for.
async fn served() -> Option<(Bus, JoinSet<()>, NatsServer, tempfile::TempDir)> {
    let dir = tempfile::tempdir().unwrap();
    let nats = NatsServer::start(dir.path()).await?;
    let options = BusOptions {
        url: nats.url(),
        name: "test".into(),
        ..BusOptions::default()
    };
    let bus = Bus::connect(&options).await.unwrap();
    let offer = Offer {
        name: "bytes".into(),
        description: String::new(),
        version: "0.1.0".into(),
        metadata: HashMap::new(),
        subject: "bytes".into(),
        group: "q".into(),
    };
    let desk = bus.offer(offer).await.unwrap();
    let answer = |question: Question| async move {
        let wanted: usize = std::str::from_utf8(question.body()).unwrap().parse().unwrap();
        let body = (0..wanted).map(|at| (at % 251) as u8).collect();
        question.answer(Answer { body, no: None }).await;
    };
    let mut running = JoinSet::new();
    running.spawn(desk.serve(4, std::future::pending(), answer));
    Some((bus, running, nats, dir))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_has_as_many_parts_as_it_needs_and_one_that_is_too_large_is_a_no() {
    let Some((bus, _running, _nats, _dir)) = served().await else {
        return;
    };
    for wanted in [0, 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES, MAX_ANSWER_BYTES] {
        let answer = bus
            .ask("bytes", &[], wanted.to_string().into(), SOON)
            .await
            .unwrap();
        assert_eq!((answer.body.len(), answer.no), (wanted, None));
        assert!(
            answer
                .body
                .iter()
                .enumerate()
                .all(|(at, byte)| (at % 251) as u8 == *byte)
        );
    }
    let wanted = (MAX_ANSWER_BYTES + 1).to_string();
    let answer = bus.ask("bytes", &[], wanted.into(), SOON).await.unwrap();
    assert_eq!(answer.no.unwrap().0, 413);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_know_of_parts_gets_one_message_or_a_no() {
    let Some((bus, _running, _nats, _dir)) = served().await else {
        return;
    };
    for (wanted, is_answered) in [(PART_BYTES, true), (PART_BYTES + 1, false)] {
        let message = bus
            .client
            .request("bytes", wanted.to_string().into())
            .await
            .unwrap();
        let no = message
            .headers
            .as_ref()
            .and_then(|h| h.get(NATS_SERVICE_ERROR_CODE));
        assert_eq!(no.is_none(), is_answered, "{no:?}");
        assert_eq!(message.payload.len() == wanted, is_answered);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_nobody_hears_is_told_from_one_that_nobody_answers() {
    let Some((bus, _running, _nats, _dir)) = served().await else {
        return;
    };
    let nobody = bus.ask("nothing", &[], vec![], SOON).await;
    assert!(matches!(nobody, Err(AskError::Nobody { .. })), "{nobody:?}");
    let _deaf = bus.client.subscribe("deaf").await.unwrap();
    bus.client.flush().await.unwrap();
    let unknown = bus.ask("deaf", &[], vec![], Duration::from_millis(50)).await;
    assert!(matches!(unknown, Err(AskError::Unknown { .. })), "{unknown:?}");
}
