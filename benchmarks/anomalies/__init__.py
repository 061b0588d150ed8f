"""How well are anomalies found, by our detector and by simpler ways?

    python -m benchmarks.anomalies train    --mnist train-images-idx3-ubyte.gz --colour PICTURES.zip --work WORK
    python -m benchmarks.anomalies one-class --mnist ... --work WORK        # each digit against the others
    python -m benchmarks.anomalies planted   --mnist ... --colour ... --work WORK   # defects with masks
    python -m benchmarks.anomalies promise   --mnist ... --work WORK        # false alarms over splits; a change found
    python -m benchmarks.anomalies rare      --mnist ... --work WORK        # detectors made from 5, 20, 50 examples
    python -m benchmarks.anomalies record    --work WORK --out RECORD       # of what was measured so far

Training goes on where it was stopped, and the other stages take the finished runs: a record says of how many seeds
it is, and a seed without all ten digits is in no row. `judges` trains the networks that make features beforehand; the
tests do it otherwise. No choice made here looks at an anomaly; the detector itself was chosen
on digits 2, 5 and 8 and on planted defects, by images that no test draws.
"""
