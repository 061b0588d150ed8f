// What another threshold would do: judged holds [score, truth] of each image (1 anomalous, 0 normal, -1 unknown), normal
// the scores of normal images that the promise rests on.
const slider = document.getElementById("threshold"), scores = judged.map(([score]) => score).concat(normal, now);
slider.min = Math.floor(Math.min(...scores));
slider.max = Math.ceil(Math.max(...scores));
slider.value = now;

function would() {
  const limit = Math.abs(slider.value - now) < 0.005 ? now : Number(slider.value);
  const flagged = judged.filter(([score]) => score > limit).length;
  const promised = (1 + normal.filter(score => score > limit).length) / (normal.length + 1);
  const words = [`At ${limit.toFixed(2)}: ${flagged} of ${judged.length} images flagged`];
  for (const [truth, name] of [[1, "missed"], [0, "false alarms"]]) {
    const of = judged.filter(row => row[1] === truth);
    const wrong = of.filter(([score]) => (score > limit) !== (truth === 1)).length;
    if (of.length) words.push(`${wrong} of ${of.length} ${name}`);
  }
  words.push(`at most ${(100 * promised).toPrecision(2)} % of fresh normal images above it`);
  document.getElementById("would").textContent = words.join("; ") + ".";
}

slider.addEventListener("input", would);
would();
