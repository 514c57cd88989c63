// ./sdpg down: ends what ./sdpg up left running.

import { createHome, sdpgHome } from "@sdpg/common/home.ts";
import { verb } from "../flags.ts";
import { down as stop } from "../mesh.ts";
import { writeOut } from "../report.ts";
import { sweep } from "../sweep.ts";

export const down = verb({
  name: "down",
  summary: "stops the services that ./sdpg up left running",
  positionals: [],
  options: {},
  details: "A run that one of them is training ends with a checkpoint first.",
  examples: ["./sdpg down"],
  async run() {
    const home = sdpgHome();
    createHome(home);
    const stopped = await stop(home);
    await sweep(home);
    for (const { service, address } of stopped) writeOut(`stopped ${service} at ${address}`);
    if (stopped.length === 0) console.error("no services were running");
    return 0;
  },
});
