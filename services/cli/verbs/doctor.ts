// ./sdpg doctor, second half: the launcher has checked what is installed; here the parts are started
// and asked. Rows continue the launcher's table.

import { sdpgHome } from "@sdpg/common/home.ts";
import { verb } from "../flags.ts";
import { leaseTelemetry, openMesh } from "../mesh.ts";
import { writeOut } from "../report.ts";

export const doctor = verb({
  name: "doctor",
  summary: "checks every requirement and says how to fix what is missing",
  positionals: [],
  options: {},
  details: [
    "PASS: fine. NOTE: needed by nothing but what the row names. FAIL: nothing works before it is",
    "fixed; the exit code is then 1. Works before anything is installed.",
  ].join("\n"),
  examples: ["./sdpg doctor"],
  async run() {
    const home = sdpgHome();
    let failed = false;
    const row = async (name: string, needed: string, probe: () => Promise<string>, fix: string) => {
      let verdict = "PASS";
      let found: string;
      try {
        found = await probe();
      } catch (error) {
        verdict = "FAIL";
        failed = true;
        found = (error instanceof Error ? error.message : String(error)).split("\n")[0];
      }
      const line = [verdict.padEnd(4), name.padEnd(26), needed.padEnd(22), found.padEnd(26)];
      writeOut(line.concat(verdict === "FAIL" ? [fix] : []).join("  ").trimEnd());
    };
    await row(
      "SDPG_HOME",
      "writable",
      () => {
        Deno.mkdirSync(home, { recursive: true, mode: 0o700 });
        const probe = Deno.makeTempFileSync({ dir: home });
        Deno.removeSync(probe);
        return Promise.resolve(home);
      },
      "set SDPG_HOME to a folder you may write to",
    );
    await row(
      "store",
      "answers a question",
      async () => {
        const telemetry = await leaseTelemetry(home);
        try {
          const response = await fetch(`${telemetry.url}/?query=SELECT%20version()`);
          const text = (await response.text()).trim();
          if (!response.ok) throw new Error(text);
          return `chDB ${text}`;
        } finally {
          await telemetry.release();
        }
      },
      `see ${home}/logs/telemetry.log`,
    );
    await row(
      "simulator to learner",
      "start and answer",
      async () => {
        const mesh = await openMesh({ home, threads: 1, ownServices: true, renderer: true });
        try {
          const { tasks } = await mesh.learner.listTasks({}, { deadlineMs: 60_000 });
          return `${tasks.length} tasks`;
        } finally {
          mesh.learner.$close();
          await mesh.close();
        }
      },
      `see ${home}/logs`,
    );
    return failed ? 1 : 0;
  },
});
