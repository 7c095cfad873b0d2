"""`emu-agent doctor`: what is installed, or what is in a folder of weights, and how to mend the rest."""

import json
from dataclasses import asdict

from omegaconf import DictConfig

from emu_agent.doctor import examine
from emu_agent.finding import Finding

MARKS = {"ok": "ok  ", "note": "note", "fail": "FAIL"}


def main(cfg: DictConfig) -> int:
    """Print what was found; 1 if something keeps the main job from running."""
    findings = examine(gl_timeout_s=cfg.gl_timeout_s) if cfg.weights is None else _weights(cfg.weights)
    healthy = all(finding.state != "fail" for finding in findings)
    if cfg.json:
        print(json.dumps({"healthy": healthy, "findings": list(map(asdict, findings))}, indent=2))
        return 0 if healthy else 1
    everything = "everything that the main job needs works" if cfg.weights is None else "nothing is broken"
    broken = ", ".join(finding.name for finding in findings if finding.state == "fail")
    print("\n".join([*map(_row, findings), "", f"mend first: {broken}" if broken else everything]))
    return 0 if healthy else 1


def _weights(folder: str) -> list[Finding]:
    from emu_agent.official.requirements import examine_weights

    return examine_weights(folder)


def _row(finding: Finding) -> str:
    mend = f"\n{'':25}-> {finding.mend}" if finding.mend else ""
    return f"{MARKS[finding.state]}  {finding.name:<18} {finding.found}{mend}"
