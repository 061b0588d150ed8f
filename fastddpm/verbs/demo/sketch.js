// A canvas of the model's aspect: white on black, or colours. After each stroke Python gets it as a PNG.
const canvas = element.querySelector("canvas"), pen = canvas.getContext("2d");
const colour = element.querySelector("[type=color]"), size = element.querySelector("[type=range]");
let last = null;

function clear() {
  pen.fillStyle = "#000";
  pen.fillRect(0, 0, canvas.width, canvas.height);
}

function place(event) {
  const box = canvas.getBoundingClientRect();
  return [(event.clientX - box.left) * canvas.width / box.width, (event.clientY - box.top) * canvas.height / box.height];
}

function stroke(event) {
  if (last === null) return;
  const next = place(event);
  pen.lineCap = pen.lineJoin = "round";
  pen.lineWidth = Number(size.value);
  pen.strokeStyle = colour ? colour.value : "#fff";
  pen.beginPath();
  pen.moveTo(...last);
  pen.lineTo(...next);
  pen.stroke();
  last = next;
}

canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  last = place(event);
  stroke(event);
});
canvas.addEventListener("pointermove", stroke);
canvas.addEventListener("pointerup", (event) => {
  stroke(event);
  last = null;
  trigger("submit", {picture: canvas.toDataURL("image/png")});
});
element.querySelector("button").addEventListener("click", clear);
clear();
