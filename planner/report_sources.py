"""The report's last part: where every number comes from, and what lies beyond it."""

import pandas as pd

from planner.models.artifact import Laws
from planner.plan import Plan
from planner.report_page import (
    Markup,
    amount,
    badge,
    bullets,
    details,
    paragraph,
    percent,
    section,
    table,
)


def provenance(
    laws: Laws, plan: Plan | None, samples: pd.DataFrame, machines: pd.DataFrame
) -> Markup:
    """Every figure the laws rest on: its value, how it is known, and from where."""
    kept = laws.provenance
    problems = samples["problem_id"].nunique() if len(samples) else 0
    rows: list[tuple[str, str, Markup, str]] = [
        (
            "draws",
            f"{len(samples):,} of {problems:,} problems",
            badge(kept.source),
            f"{', '.join(kept.engines)}; {kept.measured_from} to {kept.measured_to}; rows "
            f"sha256 {kept.rows_sha256[:12]}\u2026",
        ),
        (
            "intensity of the machine",
            "not known"
            if laws.intensity_flop_per_byte is None
            else f"{laws.intensity_flop_per_byte:.3g} FLOP/byte",
            badge(kept.source),
            "matmul rate over memory bandwidth; eFLOP = FLOP + intensity \u00d7 bytes",
        ),
        (
            "reference batch",
            f"{laws.reference_batch} draws",
            badge("assumed"),
            "weight reads of a decode step are shared by this many draws; at another "
            "batch, "
            "seconds, bytes and eFLOP of a draw differ",
        ),
        (
            "early stop of voting",
            f"at {percent(laws.stop_confidence, 0)} confidence",
            badge("assumed"),
            "setting of self-consistency; cost and accuracy of its curves follow from it",
        ),
    ]
    for machine in machines.to_dict("records"):
        rows.append(
            (
                f"machine {machine['machine']}",
                f"{amount(float(machine['flop_per_s']), 'flop')}/s, "
                f"{amount(float(machine['bytes_per_s']), 'bytes')}/s",
                badge(str(machine["source"])),
                f"{machine['device']}; {amount(float(machine['memory_bytes']), 'bytes')} "
                "memory; "
                f"{machine['os']}; Python {machine['python']}, numpy {machine['numpy']}, "
                f"{machine['blas']}",
            )
        )
    for law in laws.models:
        if law.usd_per_input_token is not None and law.usd_per_output_token is not None:
            price = (
                f"{1e6 * law.usd_per_input_token:.4g} in, "
                f"{1e6 * law.usd_per_output_token:.4g} out, USD per million tokens"
            )
            rows.append(
                (
                    f"price of {law.model}",
                    price,
                    badge("assumed"),
                    law.price_source or "no source given",
                )
            )
        else:
            rows.append(
                (
                    f"price of {law.model}",
                    "not priced",
                    Markup(""),
                    "no budget in usd can use it",
                )
            )
        if law.latency is not None:
            rows.append(
                (
                    f"seconds of {law.model}",
                    f"{law.latency.n_points} shapes timed",
                    badge(law.latency.source),
                    f"{law.engine} on machine {law.latency.machine}; batch up to "
                    f"{law.latency.batch_max}, "
                    f"context up to {law.latency.context_max:,}",
                )
            )
        else:
            rows.append(
                (
                    f"seconds of {law.model}",
                    "not known",
                    Markup(""),
                    "no timings: no budget in s can use it",
                )
            )
    tasks = [
        (
            law.task,
            f"{law.n_problems:,}",
            law.verifier,
            "yes: exact and needs no answer"
            if law.runtime_verifier
            else "no: grading only",
            f"{len(law.class_shares)}",
            percent(law.gain) if law.edges else "none",
        )
        for law in laws.tasks
    ]
    seeds = f"Seed of the fit {laws.seed}."
    if plan is not None and plan.laws.rows_sha256 != kept.rows_sha256:
        seeds += (
            " The plan was made with older laws than those shown: run `planner plan` again."
        )
    return section(
        "sources",
        "Sources and assumptions",
        table(("figure", "value", "known by", "source"), rows),
        paragraph(
            "Tasks, and who may check an answer at run time. The gain is the share of "
            "held-out variance in difficulty that the prompt's text explains; without a "
            "gain a "
            "task has one class. " + seeds
        ),
        table(
            ("task", "problems", "verifier", "usable at run time", "classes", "gain"),
            tasks,
            numeric=(1, 4, 5),
        ),
    )


def reach(plan: Plan) -> Markup:
    """What the plan uses that nobody measured."""
    chosen = [
        f"{group.task}, class {group.difficulty}, {share.forecast.option}: {item}"
        for group in plan.groups
        for share in group.choices
        for item in share.forecast.extrapolated
    ]
    if not plan.extrapolated and not chosen:
        content = [paragraph("Nothing the plan uses lies beyond what was measured.")]
    else:
        content = [
            paragraph(
                "These parts of the plan lie beyond the measurements; measure there before "
                "relying on them."
            ),
            bullets([*plan.extrapolated]),
        ]
        if chosen:
            content.append(details("By group", bullets(chosen)))
    return section("reach", "Extrapolations", *content)
