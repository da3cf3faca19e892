// Boxes and strokes on a picture: geometry and drawing, in pixels of the picture and without state.
// A stroke is an array: its width, then the columns and rows of its points.

const SHADE = "rgb(0 0 0 / 62%)";

export const limited = (value, low, high) => Math.min(Math.max(value, low), high);

// The box, moved into the picture of `size` and at least one pixel wide and high.
export function boxOf([columns, rows], x, y, width, height) {
  const box = {
    width: limited(Math.round(width), 1, columns), height: limited(Math.round(height), 1, rows),
  };
  return {
    x: limited(Math.round(x), 0, columns - box.width), y: limited(Math.round(y), 0, rows - box.height), ...box,
  };
}

// A box to begin with, for those who move it by keys.
export function middleBox([columns, rows]) {
  return boxOf([columns, rows], columns / 4, rows / 4, columns / 2, rows / 2);
}

export function boxBetween(size, [left, top], [right, bottom]) {
  return boxOf(size, Math.min(left, right), Math.min(top, bottom), Math.abs(right - left), Math.abs(bottom - top));
}

// One that grows stays where it is: at the border of the picture it grows no more.
export function grownBox([columns, rows], { x, y, width, height }, right, down) {
  return { x, y, width: limited(width + right, 1, columns - x), height: limited(height + down, 1, rows - y) };
}

export function fillBox(context, { x, y, width, height }) {
  context.fillRect(x, y, width, height);
}

export function fillStrokes(context, strokes) {
  [context.lineCap, context.lineJoin] = ["round", "round"];
  for (const [width, column, row, ...points] of strokes) {
    context.lineWidth = width;
    context.beginPath();
    context.moveTo(column, row);
    context.lineTo(column + 0.01, row); // a line of no length would not be drawn
    for (let place = 0; place < points.length; place += 2) context.lineTo(points[place], points[place + 1]);
    context.stroke();
  }
}

// Darkens what may not change; `fill` draws the shape.
export function shade(context, [columns, rows], isOutside, fill) {
  [context.fillStyle, context.strokeStyle] = [SHADE, SHADE];
  if (!isOutside) {
    context.fillRect(0, 0, columns, rows);
    context.globalCompositeOperation = "destination-out";
    [context.fillStyle, context.strokeStyle] = ["black", "black"];
  }
  fill(context);
  context.globalCompositeOperation = "source-over";
}

// Black in white is seen on every picture; `trace` makes the path.
export function outline(context, scale, trace) {
  for (const [colour, width] of [["white", 3], ["black", 1]]) {
    [context.strokeStyle, context.lineWidth] = [colour, width / scale];
    context.beginPath();
    trace(context);
    context.stroke();
  }
}
