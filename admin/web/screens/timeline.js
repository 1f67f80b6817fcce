import { state } from "../../shared/dialog.js";

export async function show({ root }) {
  state(root, "Nothing here yet", "This screen is on its way.");
}
