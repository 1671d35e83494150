from frs.facts import LossWeights, RunFacts


def test_only_known_facts_are_dumped() -> None:
    facts = RunFacts(method="frs", weights=LossWeights(0.1, None, ramp_from=60))
    assert facts.model_dump(mode="json") == {
        "method": "frs",
        "weights": {"feature": 0.1, "logit": None, "ramp_from": 60, "calibrated_at": 0},
    }
    assert RunFacts.model_validate_json(facts.model_dump_json()) == facts


def test_facts_of_another_version_are_ignored() -> None:
    assert RunFacts.model_validate({"spawned": 5, "teacher_cache": True}) == RunFacts(teacher_cache=True)
